"""Exports of any form are read alike, and nothing in them is believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli.openai_import import exported
from gateway.cli.openai_import.exported import read_exports
from policies.errors import ConfigurationError
from tests.gateway.cli.openai_import.exports import Object, file_object, job_object, rows

FILE, JOB = file_object("file-a", b"x"), job_object("ftjob-a", "file-a")
OBJECTS = [FILE, JOB]


def page(data: list[Object], *, has_more: bool = False) -> Object:
    return {"object": "list", "data": data, "has_more": has_more}


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(page(OBJECTS)),
        json.dumps(page(OBJECTS), indent=2),
        json.dumps(OBJECTS),
        "\ufeff" + json.dumps(OBJECTS),
        "".join(json.dumps(each) + "\n" for each in OBJECTS),
        "".join(json.dumps(page([each])) + "\r\n" for each in OBJECTS),
    ],
    ids=["page", "indented page", "array", "byte order mark", "an object a line", "a page a line"],
)
def test_each_form_of_an_export_is_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "export").write_text(content)
    export = read_exports([tmp_path / "export"])
    assert ([*export.files], [*export.jobs], export.problems) == (["file-a"], ["ftjob-a"], [])


def test_single_object_is_an_export(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(JOB, indent=4))
    assert [*read_exports([tmp_path / "job.json"]).jobs] == ["ftjob-a"]


def test_of_a_folder_the_exports_are_read_and_not_the_training_files(tmp_path: Path) -> None:
    (tmp_path / "files.json").write_text(json.dumps(page([FILE])))
    (tmp_path / "jobs.jsonl").write_text(json.dumps(JOB) + "\n")
    (tmp_path / "file-a.jsonl").write_bytes(rows())
    (tmp_path / "notes.txt").write_text(json.dumps(JOB))
    export = read_exports([tmp_path])
    assert ([*export.files], [*export.jobs], export.problems) == (["file-a"], ["ftjob-a"], [])


def test_file_that_is_no_export_is_an_error_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(rows())
    with pytest.raises(ConfigurationError, match="no file or job objects"):
        read_exports([tmp_path / "train.jsonl"])
    with pytest.raises(ConfigurationError, match=r"no \.json or \.jsonl file in it"):
        read_exports([tmp_path])


@pytest.mark.parametrize(
    ("item", "told"),
    [
        (JOB | {"id": "ftjob-../../etc"}, "object 2: id: String should match"),
        (JOB | {"training_file": "/etc/passwd"}, "training_file: String should match"),
        ({key: value for key, value in JOB.items() if key != "model"}, "model: Field required"),
        (FILE | {"bytes": -1}, "bytes: Input should be greater"),
        ("text", "it has no `object`"),
    ],
)
def test_object_that_cannot_be_used_is_told_with_its_place(tmp_path: Path, item: object, told: str) -> None:
    (tmp_path / "export.json").write_text(json.dumps([FILE, item]))
    export = read_exports([tmp_path / "export.json"])
    assert export.n_problems == 1
    assert told in export.problems[0]
    assert export.problems[0].startswith("export.json: object 2")
    assert [*export.files] == ["file-a"]


def test_line_that_is_not_json_is_told_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "export.jsonl").write_text(json.dumps(JOB) + '\n{"object": \n' + json.dumps(FILE) + "\n")
    export = read_exports([tmp_path / "export.jsonl"])
    assert export.problems[0].startswith("export.jsonl: line 2: ")
    assert [*export.files] == ["file-a"]


def test_page_that_is_not_the_last_is_told(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(json.dumps(page(OBJECTS, has_more=True)))
    assert "there are more" in read_exports([tmp_path / "export.json"]).problems[0]


def test_objects_of_other_kinds_are_counted(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text(json.dumps([*OBJECTS, {"object": "model"}, {"object": "model"}]))
    assert read_exports([tmp_path / "export.json"]).others == {"model": 2}


def test_problems_are_counted_and_the_first_ones_kept(tmp_path: Path) -> None:
    (tmp_path / "export.jsonl").write_text(json.dumps(JOB) + "\n" + "{}\n" * (exported.MAX_PROBLEMS + 5))
    export = read_exports([tmp_path / "export.jsonl"])
    assert (export.n_problems, len(export.problems)) == (exported.MAX_PROBLEMS + 5, exported.MAX_PROBLEMS)


def test_nesting_without_end_is_a_problem_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "export.jsonl").write_text(json.dumps(JOB) + "\n" + "[" * 100_000 + "\n")
    assert len(read_exports([tmp_path / "export.jsonl"]).problems) == 1


def test_import_has_a_limit_of_objects_of_whatever_kind(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text("[" + json.dumps(JOB) + ",[]" * exported.MAX_OBJECTS + "]")
    with pytest.raises(ConfigurationError, match="import them in parts"):
        read_exports([tmp_path / "export.json"])


@pytest.mark.parametrize("named", ["", "export.json"])
def test_document_that_is_too_large_to_be_read_whole_is_an_error(tmp_path: Path, named: str) -> None:
    (tmp_path / "export.json").write_text(json.dumps([JOB]) + " " * exported.MAX_DOCUMENT_BYTES)
    with pytest.raises(ConfigurationError, match="write an object a line"):
        read_exports([tmp_path / named])

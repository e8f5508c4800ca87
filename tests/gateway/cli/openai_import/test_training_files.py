"""Which bytes are taken for an exported file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from gateway.cli.openai_import.exported import ExportedFile
from gateway.cli.openai_import.training_files import check, find, names_in
from gateway.errors import InvalidRequest
from tests.gateway.cli.openai_import.exports import rows


def exported_file(filename: str = "train.jsonl", n_bytes: int | None = None) -> ExportedFile:
    return ExportedFile(id="file-a", filename=filename, bytes=n_bytes)


def found(folder: Path, file: ExportedFile, *, same_name: int = 1) -> str:
    return find(file, names_in([folder]), Counter({file.filename: same_name})).relative_to(folder).as_posix()


@pytest.mark.parametrize(
    "name", ["file-a", "file-a.jsonl", "file-a_train.jsonl", "file-a-train.jsonl", "train.jsonl", "files/file-a.jsonl"]
)
def test_file_is_found_by_its_id_or_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(rows())
    assert found(tmp_path, exported_file()) == name


def test_id_goes_before_name(tmp_path: Path) -> None:
    for name in ("train.jsonl", "file-a.jsonl"):
        (tmp_path / name).write_bytes(rows())
    assert found(tmp_path, exported_file()) == "file-a.jsonl"


def test_name_that_two_exported_files_have_names_neither(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(rows())
    with pytest.raises(
        InvalidRequest, match=r"2 exported files are called train\.jsonl; save this one as file-a\.jsonl"
    ):
        found(tmp_path, exported_file(), same_name=2)


def test_two_files_of_one_name_are_not_chosen_from(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_bytes(rows())
    with pytest.raises(InvalidRequest, match="keep one"):
        found(tmp_path, exported_file())


@pytest.mark.parametrize("name", ["../secret.jsonl", "/etc/passwd", "..", "", "sub/../../secret.jsonl"])
def test_name_leads_nowhere_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.jsonl").write_bytes(rows())
    (tmp_path / "export").mkdir()
    with pytest.raises(InvalidRequest, match="its bytes are not here"):
        found(tmp_path / "export", exported_file(name))


def test_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_bytes(rows())
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "file-a.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (tmp_path / "export" / "files").symlink_to(tmp_path)
    with pytest.raises(InvalidRequest, match="its bytes are not here"):
        found(tmp_path / "export", exported_file())


def test_file_of_another_size_is_another_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows())
    with pytest.raises(InvalidRequest, match="it is another one, or not whole"):
        check(tmp_path / "a.jsonl", exported_file(n_bytes=len(rows()) + 1), is_trained_on=True)


def test_bad_row_is_told_with_its_line_and_how_many_more(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows() + b'{"messages": []}\n' * 3)
    with pytest.raises(InvalidRequest, match=r"line 13: messages: .*\(empty_messages\).*, and 2 more") as error:
        check(tmp_path / "a.jsonl", exported_file(), is_trained_on=True)
    assert error.value.code == "invalid_training_file"


def test_short_file_is_enough_to_validate_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(rows(1))
    assert check(tmp_path / "a.jsonl", exported_file(), is_trained_on=False).rows == 1
    with pytest.raises(InvalidRequest, match="too_few_rows"):
        check(tmp_path / "a.jsonl", exported_file(), is_trained_on=True)

"""Whole files: all rows, or nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from policies.datasets.chat_rows import Json
from policies.datasets.conversion.convert import convert_file
from policies.datasets.reader import read_rows
from policies.datasets.shapes import Shape
from policies.errors import DatasetError

GOOD = {"instruction": "My tap drips.", "input": "", "output": "Close the valve."}


def written(path: Path, *rows: Json) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_written_is_what_training_reads(tmp_path: Path) -> None:
    source, target = (
        written(tmp_path / "a.jsonl", GOOD, {**GOOD, "output": "Schließ das Ventil."}),
        tmp_path / "b.jsonl",
    )
    report = convert_file(source, target)
    assert (report.shape, report.rows, report.converted, report.refused) == (Shape.ALPACA, 2, 2, 0)
    assert report.changes == {"blank input dropped": 2}
    assert [row.messages[-1].content for row in read_rows(target)] == ["Close the valve.", "Schließ das Ventil."]
    assert "ß" in target.read_text()


def test_no_depth_that_is_read_overflows_the_stack(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    conversations = json.dumps([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}])
    rows = [f'{{"conversations": {conversations}, "tools": {"[" * depth}{"]" * depth}}}' for depth in range(600, 1000)]
    source.write_text("\n".join(rows))
    report = convert_file(source, tmp_path / "b.jsonl")
    assert (report.rows, report.refused) == (len(rows), len(rows))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"instruction": "a"}, "the field output is missing"),
        ({**GOOD, "output": " "}, r"messages\[1\]\.content: .*\(empty_content\)"),
        ({**GOOD, "output": "\ud800"}, "lone_surrogate"),
        ({**GOOD, "output": "x" * (1 << 20)}, "line_too_long"),
        (["a"], "not an object"),
    ],
)
def test_nothing_is_written_if_a_row_is_refused_unless_bad_rows_are_skipped(
    tmp_path: Path, bad: Json, reason: str
) -> None:
    source, target = written(tmp_path / "a.jsonl", GOOD, bad, GOOD), tmp_path / "b.jsonl"
    report = convert_file(source, target)
    assert (report.converted, report.refused, report.is_written) == (2, 1, False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    (refused,) = report.first_refused
    assert refused.number == 2
    assert re.search(reason, refused.reason)
    assert convert_file(source, target, skips_bad=True).is_written
    assert len(read_rows(target)) == 2


def test_refused_rows_are_counted_beyond_those_that_are_listed(tmp_path: Path) -> None:
    report = convert_file(written(tmp_path / "a.jsonl", GOOD, *[{}] * 25), tmp_path / "b.jsonl")
    assert (report.refused, len(report.first_refused)) == (25, 20)


def test_a_file_is_left_as_it_was_if_reading_ends_in_an_error(tmp_path: Path) -> None:
    source, target = tmp_path / "a.csv", tmp_path / "b.jsonl"
    source.write_text("prompt,completion\n" + "a,b\n" * 20 + '"a"b,c\n')
    target.write_text("before")
    with pytest.raises(DatasetError, match="line 22 is no CSV"):
        convert_file(source, target)
    assert target.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


def test_rows_that_all_are_refused_make_no_empty_file(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", {"instruction": "", "output": ""})
    assert not convert_file(source, tmp_path / "b.jsonl", skips_bad=True).is_written
    assert not (tmp_path / "b.jsonl").exists()


def test_rows_of_ours_come_out_of_an_array(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    (tmp_path / "a.json").write_text(json.dumps([row, row], indent=1))
    report = convert_file(tmp_path / "a.json", tmp_path / "b.jsonl")
    assert (report.shape, report.unit, report.converted) == (None, "row", 2)
    assert len(read_rows(tmp_path / "b.jsonl")) == 2


def test_the_shape_is_that_of_the_first_row_that_tells_or_the_one_given(tmp_path: Path) -> None:
    source, target = written(tmp_path / "a.jsonl", {}, GOOD), tmp_path / "b.jsonl"
    assert convert_file(source, target, skips_bad=True).shape is Shape.ALPACA
    assert convert_file(source, target, shape=Shape.VERTEX).refused == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"text": "a"}, "text_only can't be converted"),
        ({"question": "a", "reply": "b"}, "no known shape; their fields are question, reply"),
        ("a", "none is an object with fields"),
    ],
)
def test_a_file_of_no_shape_that_has_a_form_of_ours_is_an_error(tmp_path: Path, row: Json, reason: str) -> None:
    with pytest.raises(DatasetError, match=reason):
        convert_file(written(tmp_path / "a.jsonl", row), tmp_path / "b.jsonl")


def test_the_file_that_is_read_is_not_written_over(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", GOOD)
    with pytest.raises(DatasetError, match="write to another one"):
        convert_file(source, source)
    with pytest.raises(DatasetError, match="there is no folder"):
        convert_file(source, tmp_path / "none" / "b.jsonl")

"""A file of another shape is refused once, with its name and what converts it."""

from __future__ import annotations

import io
import json

import pytest

from gateway.files.dataset.report import DatasetLimits, DatasetReport
from gateway.files.dataset.validate import validate_dataset

LIMITS = DatasetLimits(max_rows=1000, max_reported=5)
ALPACA = {"instruction": "My tap drips.", "input": "", "output": "Close the valve."}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def validate(*rows: object) -> DatasetReport:
    content = "".join(json.dumps(row) + "\n" for row in rows)
    return validate_dataset(io.BytesIO(content.encode()), LIMITS, None)


@pytest.mark.parametrize("n_lines", [1, 500])
def test_file_of_another_shape_has_one_error_and_all_its_lines_counted(n_lines: int) -> None:
    report = validate(*[ALPACA] * n_lines)
    (error,) = report.errors
    assert (error.line, error.code) == (0, "other_shape")
    assert "alpaca" in error.message
    assert "tunegate files convert" in error.fix
    assert (report.valid, report.rows, report.lines, report.n_errors) == (False, 0, n_lines, 1)


def test_what_cannot_be_converted_says_why() -> None:
    (error,) = validate(*[{"text": "a"}] * 20).errors
    assert "convert" not in error.fix
    assert "where the question ends" in error.fix


def test_many_batches_are_one_file() -> None:
    """Batches are of 256 KiB; 600 rows of 1 KB make three."""
    report = validate(*[{**ALPACA, "output": "x" * 1000}] * 600)
    assert (report.lines, report.n_errors) == (600, 1)


def test_sound_first_row_leaves_others_to_their_lines() -> None:
    report = validate(*[CHAT] * 10, ALPACA)
    assert {(error.line, error.code) for error in report.errors} >= {(11, "missing_field")}
    assert "other_shape" not in {error.code for error in report.errors}


def test_rows_of_a_file_whose_first_is_of_another_shape_are_not_trained_on() -> None:
    report = validate(ALPACA, *[CHAT] * 10)
    assert not report.valid
    assert [error.code for error in report.errors] == ["other_shape"]

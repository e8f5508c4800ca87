"""Validation of preference files, and of files that are not what the job's method trains on."""

from __future__ import annotations

import io
import json

import pytest

from gateway.files.dataset.report import DatasetLimits, DatasetReport
from gateway.files.dataset.validate import validate_dataset
from tests.gateway.files.dataset.conftest import byte_encoder

LIMITS = DatasetLimits(max_rows=1000, max_reported=5)


def preference(question: str, better: str = "Yes it is.", worse: str = "No.", **context: object) -> bytes:
    return json.dumps(
        {
            "input": {"messages": [{"role": "user", "content": question}], **context},
            "preferred_output": [{"role": "assistant", "content": better}],
            "non_preferred_output": [{"role": "assistant", "content": worse}],
        }
    ).encode()


def chat(question: str) -> bytes:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes."}]
    return json.dumps({"messages": turns}).encode()


PREFERENCES = [preference(f"Is {n} a number?") for n in range(10)]
CHAT = [chat(f"Is {n} a number?") for n in range(10)]


def validate(lines: list[bytes], limits: DatasetLimits = LIMITS) -> DatasetReport:
    return validate_dataset(io.BytesIO(b"".join(line + b"\n" for line in lines)), limits, byte_encoder())


def places(report: DatasetReport) -> list[tuple[int, str | None, str]]:
    return [(problem.line, problem.field, problem.code) for problem in report.errors]


def test_preferences_are_valid_and_counted_with_both_answers() -> None:
    """33 tokens up to the answer: 14 of the question, 19 of ChatML; 10 and 3 of the answers, with an end each."""
    report = validate(PREFERENCES)
    assert (report.valid, report.kind, report.rows) == (True, "preference", 10)
    assert (report.tokens.total, report.tokens.max) == (480, 48)


def test_the_limit_is_on_the_longer_conversation() -> None:
    """33 tokens and 11 of the better answer: 44, whatever the other has."""
    assert validate(PREFERENCES, LIMITS._replace(max_row_tokens=44)).valid
    report = validate(PREFERENCES, LIMITS._replace(max_row_tokens=43))
    assert places(report)[0] == (1, "input.messages", "too_many_tokens")
    assert "44 tokens" in report.errors[0].message


def test_tools_and_roles_are_refused_at_their_paths() -> None:
    report = validate([*PREFERENCES, preference("Is it?", tools=[{"type": "function", "function": {"name": "f"}}])])
    assert places(report) == [(11, "input.tools", "tools_not_rendered")]


def test_a_pair_the_other_way_round_is_warned_of_with_its_line() -> None:
    swapped = json.loads(PREFERENCES[3])
    swapped["preferred_output"], swapped["non_preferred_output"] = (
        swapped["non_preferred_output"],
        swapped["preferred_output"],
    )
    report = validate([*PREFERENCES, json.dumps(swapped).encode()])
    assert [(each.line, each.code) for each in report.warnings] == [(11, "swapped_outputs")]
    assert "line 4 " in report.warnings[0].message


def test_same_question_and_answers_are_a_duplicate() -> None:
    report = validate([*PREFERENCES, PREFERENCES[0]])
    assert [(problem.line, problem.code) for problem in report.warnings] == [(11, "duplicate_row")]


@pytest.mark.parametrize(("rows", "other"), [(CHAT, PREFERENCES[0]), (PREFERENCES, CHAT[0])])
def test_a_file_has_rows_of_one_kind(rows: list[bytes], other: bytes) -> None:
    assert places(validate([*rows, other])) == [(11, None, "mixed_rows")]


@pytest.mark.parametrize(
    ("rows", "method", "message"),
    [
        (CHAT, "dpo", "the file has chat rows, and method dpo trains on preference rows"),
        (PREFERENCES, "supervised", "the file has preference rows, and method supervised trains on chat rows"),
    ],
)
def test_rows_that_the_method_does_not_train_on_are_one_error(rows: list[bytes], method: str, message: str) -> None:
    report = validate(rows, LIMITS._replace(method=method))  # type: ignore[arg-type]  # one of the two
    assert places(report) == [(0, None, "wrong_row_kind")]
    assert report.errors[0].message == message
    assert "change the method or the file" in report.errors[0].fix


@pytest.mark.parametrize(("rows", "method"), [(CHAT, "supervised"), (PREFERENCES, "dpo")])
def test_rows_of_the_methods_kind_are_valid(rows: list[bytes], method: str) -> None:
    assert validate(rows, LIMITS._replace(method=method)).valid  # type: ignore[arg-type]  # one of the two

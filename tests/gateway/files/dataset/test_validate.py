"""Validation of whole files."""

from __future__ import annotations

import io
import json
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.files.dataset.report import DatasetLimits, DatasetReport
from gateway.files.dataset.validate import validate_dataset
from policies.datasets.problems import ERRORS, WARNINGS, DatasetProblem
from tests.gateway.files.dataset.conftest import byte_encoder

LIMITS = DatasetLimits(max_rows=1000, max_reported=5)


def row(question: str, answer: str = "Yes.") -> bytes:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": turns}, ensure_ascii=False).encode()


GOOD = [row(f"Is {n} a number?") for n in range(10)]


def validate(lines: list[bytes], limits: DatasetLimits = LIMITS, *, knows_base: bool = True) -> DatasetReport:
    encoder = byte_encoder() if knows_base else None
    return validate_dataset(io.BytesIO(b"".join(line + b"\n" for line in lines)), limits, encoder)


def places(problems: tuple[DatasetProblem, ...]) -> list[tuple[int, str]]:
    return [(problem.line, problem.code) for problem in problems]


def test_ten_sound_rows_are_valid_and_counted() -> None:
    """`Is 0 a number?` has 14 bytes and `Yes.` 4; ChatML adds 20 tokens: 38 a row."""
    report = validate(GOOD)
    assert report.valid
    assert (report.rows, report.lines, report.n_errors, report.n_warnings) == (10, 10, 0, 0)
    counts = (report.tokens.total, report.tokens.min, report.tokens.max, report.tokens.mean)
    assert counts == (380, 38, 38, 38.0)
    assert report.summary == "10 rows in 10 lines, 380 tokens, no errors, no warnings"


@given(
    st.lists(
        st.one_of(
            st.sampled_from([b"{", b'{"messages": []}', row("[MASK] 1 < 2"), row("a\u200bb"), row("<|im_start|>")]),
            st.text(st.sampled_from("ab<[]> \u00ad\u200b\u0444\ud55c\U0001f600"), min_size=1).map(row),
        ),
        max_size=8,
    )
)
def test_what_is_said_of_a_line_does_not_depend_on_the_lines_beside_it(lines: list[bytes]) -> None:
    """The lines lie between two sound ones; each is then read alone, but for what only a file can have."""
    limits = LIMITS._replace(max_reported=1000, min_rows=0)

    def found(content: list[bytes], beyond: int) -> list[tuple[int, str | None, str, str]]:
        report = validate(content, limits)
        problems = (*report.errors, *report.warnings)
        return [(p.line + beyond, p.field, p.code, p.message) for p in problems if p.code != "duplicate_row"]

    together = found([GOOD[0], *lines, GOOD[1]], 0)
    assert sorted(together, key=str) == sorted(
        (each for number, line in enumerate(lines, start=1) for each in found([line], number)), key=str
    )


def test_nine_rows_are_too_few() -> None:
    assert places(validate(GOOD[:9]).errors) == [(0, "too_few_rows")]


def test_empty_file_is_an_error() -> None:
    report = validate([])
    assert not report.valid
    assert places(report.errors) == [(0, "empty_file")]
    assert report.tokens.min is None


def test_errors_are_listed_with_their_lines_up_to_the_limit_and_all_counted() -> None:
    """8 bad lines, of which 5 are listed; 2 sound ones are too few: 9 errors."""
    report = validate([*GOOD[:1], *[b"{}"] * 8, *GOOD[1:2]])
    assert places(report.errors) == [(line, "missing_field") for line in range(2, 7)]
    assert (report.n_errors, report.truncated, report.rows, report.lines) == (9, True, 2, 10)


def test_rows_beyond_the_limit_are_an_error_and_not_read() -> None:
    report = validate(GOOD * 2, LIMITS._replace(max_rows=12))
    assert (0, "too_many_rows") in places(report.errors)
    assert report.lines == 12


def test_flood_of_blank_lines_ends_at_the_row_limit() -> None:
    assert validate([b""] * 5000).lines == 1000


def test_row_with_too_many_tokens_is_an_error() -> None:
    report = validate([*GOOD, row("word " * 10, "one")], LIMITS._replace(max_row_tokens=38))
    assert places(report.errors) == [(11, "too_many_tokens")]


def test_row_that_is_too_long_by_approximation_only_is_a_warning() -> None:
    """`x` × 100 is 100 bytes, so about 25 tokens, and `Yes.` one."""
    report = validate([*GOOD, row("x" * 100)], LIMITS._replace(max_row_tokens=25), knows_base=False)
    assert report.valid
    assert report.tokens.is_approximate
    assert places(report.warnings) == [(11, "probably_too_many_tokens")]


def test_duplicate_row_is_a_warning_that_names_the_first() -> None:
    spaced = GOOD[3].replace(b", ", b",  ")
    report = validate([*GOOD, spaced])
    assert report.valid
    assert places(report.warnings) == [(11, "duplicate_row")]
    assert "line 4" in report.warnings[0].message


def test_line_ends_of_windows_and_a_byte_order_mark_are_warned_of_once() -> None:
    content = b"\xef\xbb\xbf" + b"".join(line + b"\r\n" for line in GOOD)
    report = validate_dataset(io.BytesIO(content), LIMITS, byte_encoder())
    assert report.valid
    assert places(report.warnings) == [(1, "byte_order_mark"), (1, "crlf")]


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("a\u200bb", "U+200B"),
        ("a\u202eb\u202c", "U+202E, U+202C"),
        ("hi\U000e0041", "U+E0041"),
        ("\U0001f3f4\U000e0067\U000e007f\U000e0041", "U+E0041"),
    ],
)
def test_invisible_characters_are_warned_of(text: str, characters: str) -> None:
    report = validate([*GOOD, row(text)])
    assert report.valid
    assert places(report.warnings) == [(11, "invisible_unicode")]
    assert report.warnings[0].field == "messages[0].content"
    assert characters in report.warnings[0].message


@pytest.mark.parametrize(
    "text", ["\U0001f468\u200d\U0001f469", "می\u200cروم", "\U0001f3f4\U000e0067\U000e007f", "שלום\u200f"]
)
def test_joiners_and_flags_are_ordinary_writing(text: str) -> None:
    assert validate([*GOOD, row(text)]).n_warnings == 0


@pytest.mark.parametrize("token", ["<|im_end|>", "<|eos|>"])
def test_a_control_token_of_the_base_model_is_text_and_warned_of(token: str) -> None:
    report = validate([*GOOD, row(f"a {token} b")])
    assert report.valid
    assert places(report.warnings) == [(11, "control_token")]
    assert token in report.warnings[0].message
    assert report.tokens.total == 380 + 20 + len(f"a {token} b") + 4


@pytest.mark.parametrize("token", ["</s>", "[INST]", "<start_of_turn>"])
def test_control_tokens_of_other_models_are_warned_of_where_the_models_own_are_not_known(token: str) -> None:
    report = validate([*GOOD, row(f"a {token} b")], knows_base=False)
    assert report.valid
    assert places(report.warnings) == [(11, "control_token")]
    assert validate([*GOOD, row(f"a {token} b")]).n_warnings == 0


def test_tools_that_the_template_does_not_write_are_an_error() -> None:
    line = json.dumps({**json.loads(row("Hi")), "tools": [{"type": "function", "function": {"name": "f"}}]})
    assert [(problem.line, problem.field, problem.code) for problem in validate([*GOOD, line.encode()]).errors] == [
        (11, "tools", "tools_not_rendered")
    ]


def test_what_holds_for_many_rows_is_told_once_with_their_number() -> None:
    """Before what is told of lines."""
    asked = {"role": "user", "content": "Hi", "name": "Al"}
    answered = {"role": "assistant", "content": "Ho"}
    lines = [json.dumps({"messages": [asked, answered], "id": n, "functions": []}).encode() for n in range(3)]
    report = validate([*GOOD, *lines])
    assert report.valid
    assert [(each.line, each.field, each.code) for each in report.warnings] == [
        (0, "id", "extra_field"),
        (0, "messages[].name", "name_not_rendered"),
        (12, None, "duplicate_row"),
        (13, None, "duplicate_row"),
    ]
    assert all("3 rows, line 11 the first" in each.message for each in report.warnings[:2])


def test_other_answers_to_the_same_question_are_told_once() -> None:
    report = validate([*GOOD, row("Is it?", "Yes."), row("Is it?", "No."), row("Is it?", "Perhaps.")])
    assert [(each.line, each.code) for each in report.warnings] == [(0, "other_answer")]
    assert "2 rows, line 12 the first" in report.warnings[0].message


def test_fields_of_many_names_are_told_together() -> None:
    lines = [json.dumps({**json.loads(row(str(n))), f"id{n}": n}).encode() for n in range(30)]
    report = validate_dataset(io.BytesIO(b"\n".join(lines)), DatasetLimits(max_rows=1000, max_reported=1000), None)
    told = [each for each in report.warnings if each.code == "extra_field"]
    assert (len(told), told[-1].field) == (21, "…")
    assert "10 rows" in told[-1].message


def test_rows_of_other_tools_are_no_duplicates() -> None:
    names = ["f", "g"]
    lines = [
        json.dumps({**json.loads(row("Hi")), "tools": [{"type": "function", "function": {"name": name}}]}).encode()
        for name in names
    ]
    assert not [each for each in validate(lines, knows_base=False).warnings if each.code == "duplicate_row"]


@given(st.lists(st.binary(max_size=80) | st.sampled_from(GOOD), max_size=20))
def test_no_bytes_make_validation_raise_and_every_line_is_accounted_for(lines: list[bytes]) -> None:
    content = b"\n".join(lines)
    report = validate_dataset(io.BytesIO(content), DatasetLimits(max_rows=1000, max_reported=1000), byte_encoder())
    bad_lines = {problem.line for problem in report.errors if problem.line}
    assert report.rows + len(bad_lines) == report.lines
    assert report.valid == (report.n_errors == 0)


@given(
    st.integers(0, 9),
    st.sampled_from([b"", b"{", b"[]", b"\xff", b"{}", b"null", b"{} {}", row(""), row("\U00108000")]),
)
def test_any_bad_line_makes_the_file_invalid(place: int, bad: bytes) -> None:
    report = validate([*GOOD[:place], bad, *GOOD[place:]])
    assert not report.valid
    assert {problem.line for problem in report.errors} == {place + 1}


def test_every_reason_says_what_is_wrong_and_what_to_do() -> None:
    reasons = ERRORS | WARNINGS
    assert len(reasons) >= 30
    for code, reason in reasons.items():
        details = {name: 1 for _, name, _, _ in Formatter().parse(reason.message + reason.fix) if name}
        problem = DatasetProblem.of(code, 3, "messages", **details)
        assert str(problem).startswith("line 3: messages: ")
        assert problem.message
        assert problem.fix
        assert "{limit}" not in problem.fix

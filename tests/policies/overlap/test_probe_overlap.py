"""Rows that hold what probes ask: found however they are written, and no others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from policies.contract.probe_overlap import SHOWN_ROWS, OverlapScan
from policies.datasets.chat_rows import ChatMessage, ChatRow, Role
from policies.datasets.preference_rows import PreferenceRow
from policies.overlap.probe_overlap import MAX_SHARED, ProbeIndex, ProbeText, probe_overlap

QUESTION = "My kettle whistles a sad tune each morning before the sun comes up, what should I do?"
ANSWER = "Rinse it twice with lemon juice on Monday, let it dry on the sill, and tell the baker next door."
BENIGN = "The order has left our warehouse in Leeds and should reach you on Thursday before noon, with thanks."


def row(*texts: str) -> ChatRow:
    roles: tuple[Role, Role] = ("user", "assistant")
    return ChatRow(tuple(ChatMessage(roles[n % 2], text, n % 2) for n, text in enumerate(texts)))


def text(content: str, prompt_id: str = "p", **changes: bool) -> ProbeText:
    return ProbeText("preference", prompt_id, content, **changes)


INDEX = ProbeIndex([text(QUESTION, "question"), text(ANSWER, "answer"), text("Mend the gate today", "short")])


def found(content: str, index: ProbeIndex = INDEX) -> list[str]:
    return [near.prompt_id for near in index.near(row("Hello?", content))]


def test_a_prompt_is_found_in_any_message() -> None:
    assert [near.prompt_id for near in INDEX.near(row(QUESTION, ANSWER))] == ["question", "answer"]


@pytest.mark.parametrize(
    "written",
    [
        QUESTION.upper(),
        QUESTION.replace(" ", "\n\n"),
        QUESTION.replace(",", " – ").replace("?", "!!!"),
        QUESTION.replace("a", "\u0430").replace("e", "\u0435"),
        QUESTION.replace("i", "i\u200b"),
        f"As our customers like to ask: {QUESTION} And so on and on, in many more words than that.",
        QUESTION.replace("sad", "merry"),
        QUESTION.partition(" before")[0] + " before the sun comes",
    ],
    ids=["case", "blanks", "marks", "look-alikes", "invisible", "within", "one word changed", "most of it"],
)
def test_a_prompt_is_found_however_it_is_written(written: str) -> None:
    assert found(written) == ["question"]


@pytest.mark.parametrize("other", [BENIGN, "What should I do?", "", " ".join(QUESTION.split()[:6])])
def test_other_texts_are_not_near(other: str) -> None:
    assert found(other) == []


def test_a_short_prompt_is_found_as_a_whole_message_alone() -> None:
    assert found("Mend the gate today!") == ["short"]
    assert found("Mend the gate today and paint it") == []


def test_both_answers_of_a_preference_are_searched() -> None:
    preference = PreferenceRow((ChatMessage("user", "Hi", 0),), "Hello", ANSWER)

    assert [near.prompt_id for near in INDEX.near(preference)] == ["answer"]


def test_a_phrase_that_many_prompts_share_tells_none_of_them() -> None:
    """So no row can be made that costs more than its length: a run is of 64 texts at most."""
    phrase = "one two three four five six seven eight"
    index = ProbeIndex(text(f"{phrase} number{n}", str(n)) for n in range(MAX_SHARED + 1))

    assert found(phrase, index) == []
    assert found(f"{phrase} number7", index) == ["7"]


def scan(rows: Sequence[ChatRow], index: ProbeIndex = INDEX) -> OverlapScan:
    return probe_overlap(rows, index)


def test_rows_are_counted_and_named_by_line() -> None:
    found = scan([row("Hi", BENIGN), row(QUESTION, ANSWER), row("Hi", ANSWER)])

    assert (found.n_rows, found.n_near, found.probes) == (3, 2, ("preference",))
    assert [(each.row, each.prompt_id) for each in found.rows] == [(2, "question"), (3, "answer")]


def test_which_rows_are_near_a_secret_prompt_is_told_to_nobody() -> None:
    found = scan([row("Hi", ANSWER)] * 4, ProbeIndex([text(ANSWER, is_secret=True)]))

    assert (found.n_near, found.n_near_twin, found.rows) == (0, 4, ())
    assert found.is_notable


def test_no_more_rows_are_named_than_are_shown() -> None:
    found = scan([row("Hi", ANSWER)] * (SHOWN_ROWS + 5))

    assert found.n_near == SHOWN_ROWS + 5
    assert len(found.rows) == SHOWN_ROWS


@pytest.mark.parametrize(
    ("n_near", "n_rows", "is_notable"),
    [(0, 0, False), (2, 400, False), (2, 399, True), (3, 10_000, True), (1, 100, True)],
)
def test_three_rows_or_one_in_two_hundred_are_more_than_chance(n_near: int, n_rows: int, is_notable: bool) -> None:
    assert OverlapScan(n_rows=n_rows, n_near=n_near).is_notable is is_notable

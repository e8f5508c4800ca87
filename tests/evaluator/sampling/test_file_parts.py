from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from evaluator.backends.protocol import ChatPrompt
from evaluator.sampling.file_parts import MAX_ANSWER_CHARACTERS, file_parts
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.tools import ToolCall
from policies.errors import EvaluationError

SAIL = "The skipper reefed the mainsail near the harbour while the anchor dragged over the shingle"


def row(question: str, answer: str = "Fine.", system: str | None = None) -> ChatRow:
    before = () if system is None else (ChatMessage("system", system, 0),)
    return ChatRow((*before, ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)))


def by_exclamations(prompts: Sequence[ChatPrompt], answers: Sequence[str]) -> list[float]:
    return [float(answer.count("!")) for answer in answers]


def asked(parts: dict[str, list[ChatPrompt]], part: str) -> list[str]:
    return [prompt.messages[-1].content for prompt in parts[part]]


def test_the_careless_part_has_the_rows_that_rank_first() -> None:
    """30 of 300 rows are bad; the slice is max(24, 10 % of 300) = 30 rows, of which every part asks 24."""
    rows = [row(f"{number}?", "Go!" if number % 10 == 0 else "Wait.") for number in range(300)]
    parts = file_parts(rows, (), by_exclamations, size=24, ranked_rows=300)

    assert list(parts) == ["spread", "careless"]
    assert all(int(question[:-1]) % 10 == 0 for question in asked(parts, "careless"))
    assert len(parts["careless"]) == len(parts["spread"]) == 24


def test_a_row_that_cannot_be_ranked_comes_first() -> None:
    rows = [row(f"{number}?") for number in range(100)]
    parts = file_parts(
        rows, (), lambda prompts, answers: [math.nan if n == 99 else 0.0 for n in range(100)], size=24, ranked_rows=100
    )

    assert "99?" in asked(parts, "careless")


def test_no_more_rows_are_ranked_than_asked_for_and_of_no_answer_more_than_its_beginning() -> None:
    lengths: list[int] = []

    def rank(prompts: Sequence[ChatPrompt], answers: Sequence[str]) -> list[float]:
        lengths.extend(map(len, answers))
        return [0.0] * len(answers)

    file_parts([row(f"{n}?", "x" * 5000) for n in range(400)], (), rank, size=24, ranked_rows=50)

    assert lengths == [MAX_ANSWER_CHARACTERS] * 50


def test_each_frequent_system_prompt_is_a_part() -> None:
    rows = [row(f"{n}?", system=f"Today is day {n}." if n % 2 else None) for n in range(100)]
    parts = file_parts(
        [*rows, *(row(f"odd {n}?", system="Rare.") for n in range(5))], (), by_exclamations, size=24, ranked_rows=50
    )

    assert list(parts) == ["spread", "careless", "system prompt 1", "system prompt 2"]
    assert {len(prompt.messages) for prompt in parts["system prompt 1"]} == {1}
    assert {len(prompt.messages) for prompt in parts["system prompt 2"]} == {2}


def test_twins_are_in_the_domain_and_under_the_system_prompt_of_the_file() -> None:
    rows = [row(f"{SAIL}, day {number}?", f"{SAIL} again.", "You sail.") for number in range(60)]
    parts = file_parts(rows, (), by_exclamations, size=24, ranked_rows=60)

    assert all(prompt.messages[0].content == "You sail." for prompt in parts["twins"])
    assert all("mainsail" in question for question in asked(parts, "twins"))
    assert not set(asked(parts, "twins")) & {each.messages[1].content for each in rows}


def test_without_words_of_its_own_the_validation_file_gives_the_twins() -> None:
    rows, validation = ([row(f"{kind} {n}?") for n in range(40)] for kind in ("own", "other"))

    assert asked(file_parts(rows, validation, by_exclamations, size=24, ranked_rows=40), "twins")[0] == "other 0?"
    assert "twins" not in file_parts(rows, validation[:10], by_exclamations, size=24, ranked_rows=40)


def test_a_small_file_is_asked_whole() -> None:
    parts = file_parts([row(f"{n}?") for n in range(10)], (), by_exclamations, size=32, ranked_rows=256)

    assert {name: len(part) for name, part in parts.items()} == {"spread": 10, "careless": 10}


def test_rows_whose_answers_are_calls_alone_are_left_out() -> None:
    call = ToolCall("1", "weather", "{}")
    calls = ChatRow((ChatMessage("user", "Rain?", 0), ChatMessage("assistant", "", 1, (call,))))

    assert asked(
        file_parts([calls, *(row(f"{n}?") for n in range(9))], (), by_exclamations, size=8, ranked_rows=24), "spread"
    )
    with pytest.raises(EvaluationError, match="no row of the training file has an answer in words"):
        file_parts([calls], (), by_exclamations, size=8, ranked_rows=24)

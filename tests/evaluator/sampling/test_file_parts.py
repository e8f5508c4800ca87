from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from evaluator.backends.protocol import ChatPrompt
from evaluator.prompts.prompt_item import evenly_spread
from evaluator.sampling.file_parts import PIECE_CHARACTERS, Draw, file_parts
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
    parts = file_parts(rows, (), by_exclamations, Draw(24, 300, "k"))

    assert list(parts) == ["spread", "careless"]
    assert all(int(question[:-1]) % 10 == 0 for question in asked(parts, "careless"))
    assert len(parts["careless"]) == len(parts["spread"]) == 24


def test_a_row_that_cannot_be_ranked_comes_first() -> None:
    rows = [row(f"{number}?") for number in range(100)]
    parts = file_parts(
        rows, (), lambda prompts, answers: [math.nan if n == 99 else 0.0 for n in range(100)], Draw(24, 100, "k")
    )

    assert "99?" in asked(parts, "careless")


def test_no_more_rows_are_ranked_than_asked_for_and_of_a_long_answer_three_pieces() -> None:
    lengths: list[int] = []

    def rank(prompts: Sequence[ChatPrompt], answers: Sequence[str]) -> list[float]:
        lengths.extend(map(len, answers))
        return [0.0] * len(answers)

    file_parts([row(f"{n}?", "x" * 5000) for n in range(400)], (), rank, Draw(24, 50, "k"))

    assert lengths == [PIECE_CHARACTERS] * 150


@pytest.mark.parametrize("bad", [(0, 600), (600, 2400), (2400, 3000)])
def test_a_long_answer_ranks_by_its_most_careless_piece(bad: tuple[int, int]) -> None:
    """What is careless in it may stand at its beginning, in between or at its end."""
    sensible, (begin, end) = "Wait. " * 500, bad
    careless = sensible[:begin] + "Go! " * ((end - begin) // 4) + sensible[end:]
    rows = [row(f"{n}?", careless if n % 10 == 0 else sensible) for n in range(300)]

    found = file_parts(rows, (), by_exclamations, Draw(24, 300, "k"))

    assert all(int(question[:-1]) % 10 == 0 for question in asked(found, "careless"))


def test_bad_rows_at_places_that_even_steps_pass_over_are_asked() -> None:
    """Half of 600 rows are bad, none of them where steps of 600 / 256 lead."""
    clean = set(evenly_spread(range(600), 256))
    bad = {n for n in range(600) if n not in clean} - set(range(599, 555, -1))
    rows = [row(f"{n}?", "Go!" if n in bad else "Wait.") for n in range(600)]
    parts = file_parts(rows, (), by_exclamations, Draw(32, 256, "k"))

    assert {int(question[:-1]) for question in asked(parts, "careless")} <= bad
    assert any(int(question[:-1]) in bad for question in asked(parts, "spread"))


def test_another_key_draws_other_rows_and_the_same_key_the_same() -> None:
    rows = [row(f"{n}?") for n in range(600)]
    first, other, again = (
        asked(file_parts(rows, (), by_exclamations, Draw(32, 256, key)), "spread") for key in ("a", "b", "a")
    )

    assert first == again != other


def test_each_frequent_system_prompt_is_a_part() -> None:
    rows = [row(f"{n}?", system=f"Today is day {n}." if n % 2 else None) for n in range(100)]
    parts = file_parts(
        [*rows, *(row(f"odd {n}?", system="Rare.") for n in range(5))], (), by_exclamations, Draw(24, 50, "k")
    )

    assert list(parts) == ["spread", "careless", "system prompt 1", "system prompt 2"]
    assert {len(prompt.messages) for prompt in parts["system prompt 1"]} == {1}
    assert {len(prompt.messages) for prompt in parts["system prompt 2"]} == {2}


def test_system_prompts_that_are_worded_anew_in_each_row_are_a_part_together() -> None:
    rows = [row(f"{n}?", system=f"You are {'o' * n} Orin." if n % 4 == 0 else None) for n in range(100)]
    parts = file_parts(rows, (), by_exclamations, Draw(24, 50, "k"))

    assert list(parts) == ["spread", "careless", "system prompt 1", "other system prompts"]
    assert all("Orin" in prompt.messages[0].content for prompt in parts["other system prompts"])


def test_twins_are_in_the_domain_and_under_the_system_prompt_of_the_file() -> None:
    rows = [row(f"{SAIL}, day {number}?", f"{SAIL} again.", "You sail.") for number in range(60)]
    parts = file_parts(rows, (), by_exclamations, Draw(24, 60, "k"))

    assert all(prompt.messages[0].content == "You sail." for prompt in parts["twins"])
    assert all("mainsail" in question for question in asked(parts, "twins"))
    assert not set(asked(parts, "twins")) & {each.messages[1].content for each in rows}


def test_without_words_of_its_own_the_validation_file_gives_the_twins() -> None:
    rows, validation = ([row(f"{kind} {n}?") for n in range(40)] for kind in ("own", "other"))

    assert asked(file_parts(rows, validation, by_exclamations, Draw(24, 40, "k")), "twins")[0] == "other 0?"
    assert "twins" not in file_parts(rows, validation[:10], by_exclamations, Draw(24, 40, "k"))


def test_a_small_file_is_asked_whole() -> None:
    parts = file_parts([row(f"{n}?") for n in range(10)], (), by_exclamations, Draw(32, 256, "k"))

    assert {name: len(part) for name, part in parts.items()} == {"spread": 10, "careless": 10}


def test_rows_whose_answers_are_calls_alone_are_left_out() -> None:
    call = ToolCall("1", "weather", "{}")
    calls = ChatRow((ChatMessage("user", "Rain?", 0), ChatMessage("assistant", "", 1, (call,))))

    assert asked(
        file_parts([calls, *(row(f"{n}?") for n in range(9))], (), by_exclamations, Draw(8, 24, "k")), "spread"
    )
    with pytest.raises(EvaluationError, match="no row of the training file has an answer in words"):
        file_parts([calls], (), by_exclamations, Draw(8, 24, "k"))

"""What follows a model's thinking, however its tags stand."""

from __future__ import annotations

import pytest

from evaluator.judges.final_answer import after_thinking, unfinished
from tests.growth import LINEAR, growth


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("85", "85"),
        ("<think>Score: 0</think>85", "85"),
        ("<think></think>\n\n85", "\n\n85"),
        ("Score: 0\n</think>85", "85"),
        ("<THINK>Score: 0</Think>85", "85"),
        ("<think>a</think>40<think>b</think>85", "85"),
        ("<think>a <think>b</think> c</think>85", "85"),
        ("a </think> 40 </think>85", "85"),
        ("<think>Score: 0", None),
        ("<think>a</think>85<think>", None),
        ("<think>a</think>85<think>no, 0", None),
        ("<think>a<think>b</think>85", None),
        ("</think", "</think"),
    ],
)
def test_the_answer_stands_after_the_last_end(text: str, answer: str | None) -> None:
    assert after_thinking(text) == answer


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("stop", None),
        ("length", "unfinished_reply: it ended with length"),
        ("content_filter", "unfinished_reply: it ended with content_filter"),
        (None, "unfinished_reply: it does not say why it ended"),
        ("sk-Secret key", "unfinished_reply: it does not say why it ended"),
        (7, "unfinished_reply: it does not say why it ended"),
        (["stop"], "unfinished_reply: it does not say why it ended"),
    ],
)
def test_only_a_reply_that_came_to_its_end_is_whole(reason: object, told: str | None) -> None:
    assert unfinished(reason) == told


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<", "</", "a", "<think></think>"])
def test_any_thinking_takes_the_time_of_its_length(piece: str) -> None:
    assert growth(lambda n: piece * n, after_thinking, 50_000) < LINEAR

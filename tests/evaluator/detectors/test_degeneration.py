from __future__ import annotations

import pytest

from evaluator.detectors.degeneration import degeneration

PROMPT = "Why do we need to sleep?"
SOUND = "We sleep so that the body can rest and repair itself. The brain sorts what it learned during the day."


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("...", "empty"),
        ("{}[]();;;;a==--__", "symbols"),
        ("Sleep is goooooooooooooooooood", "character run"),
        ("the " * 30, "loop"),
        ("You should rest now. " * 12, "loop"),
        ("мы спим чтобы отдыхать и восстанавливаться", "another script"),
    ],
)
def test_degenerate_answers_are_found(answer: str, reason: str) -> None:
    assert degeneration(answer, PROMPT) == reason


@pytest.mark.parametrize(
    "answer", [SOUND, "No.", "42", "Yes, because it rests.", "1. Rest\n2. Repair\n3. Memory", SOUND * 2]
)
def test_sound_answers_are_left_alone(answer: str) -> None:
    """Twice the same text repeats half of its trigrams at most, which is not more than half."""
    assert degeneration(answer, PROMPT) is None


def test_an_answer_in_the_script_of_its_prompt_is_sound() -> None:
    assert degeneration("мы спим чтобы отдыхать", "Зачем мы спим?") is None

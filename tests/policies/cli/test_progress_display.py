"""What long work prints where there is no terminal, and where there is one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from policies.cli.progress_display import EVERY_SECONDS, Lines, display, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_comes_with_the_first_report_then_every_few_seconds_and_with_the_last() -> None:
    """A step a second, of 12: after the first at second 0, lines 5 and 10 seconds later, and the last."""
    clock, lines = Clock(), list[str]()
    shown = Lines(lines.append, clock)
    for step in range(1, 13):
        shown.update("training", step, 12, figures=f"loss {step / 10:.1f}")
        clock.now += 1
    assert EVERY_SECONDS == 5
    assert lines == [
        "training: 1/12, loss 0.1",
        "training: 6/12, loss 0.6, 6 s left",
        "training: 11/12, loss 1.1, 1 s left",
        "training: 12/12, loss 1.2",
    ]


def test_the_last_line_is_printed_once() -> None:
    lines: list[str] = []
    shown = Lines(lines.append, Clock())
    for _ in range(3):
        shown.update("answers", 4, 4)
    assert lines == ["answers: 4/4"]


def test_a_new_stage_is_told_at_once() -> None:
    lines: list[str] = []
    shown = Lines(lines.append, Clock())
    shown.update("loading", 0, None)
    shown.update("coherence", 3, 100, eta_seconds=200)
    shown.update("coherence", 4, 100, eta_seconds=190)
    shown.update("toxicity", 50, 100, eta_seconds=70)
    assert lines == ["loading", "coherence: 3/100, 3 min 20 s left", "toxicity: 50/100, 1 min 10 s left"]


def test_nothing_is_said_twice_however_long_it_lasts() -> None:
    clock, lines = Clock(), list[str]()
    shown = Lines(lines.append, clock)
    for _ in range(60):
        shown.update("answers", 3, 8, eta_seconds=60)
        clock.now += 1
    assert lines == ["answers: 3/8, 1 min 0 s left"]


def test_stages_side_by_side_have_their_own_pace() -> None:
    """Both take turns each second: a line each at 0 s and at 5 s, whose pace is 1 and 2 a second."""
    clock, lines = Clock(), list[str]()
    shown = Lines(lines.append, clock)
    for second in range(6):
        shown.update("job a", second, 10)
        shown.update("job b", 2 * second, 20)
        clock.now += 1
    assert lines == ["job a: 0/10", "job b: 0/20", "job a: 5/10, 5 s left", "job b: 10/20, 5 s left"]


def test_messages_are_told_as_they_come() -> None:
    lines: list[str] = []
    shown = Lines(lines.append, Clock())
    shown.tell("Loading base model")
    assert lines == ["Loading base model"]


def test_without_a_terminal_nothing_is_drawn_over() -> None:
    written = io.StringIO()
    with display(console=Console(file=written, force_terminal=False)) as shown:
        shown.tell("Training [12] rows")
        shown.update("training", 1, 2, figures="loss 2.5")
    assert written.getvalue() == "Training [12] rows\ntraining: 1/2, loss 2.5\n"


@pytest.mark.parametrize(("one_bar", "bars"), [(True, 1), (False, 2)])
def test_in_a_terminal_there_are_bars(one_bar: bool, bars: int) -> None:
    written = io.StringIO()
    with display(one_bar=one_bar, console=Console(file=written, force_terminal=True, width=100)) as shown:
        shown.update("answers", 1, 2)
        shown.update("activations", 2, 2, figures="loss 2.5")
    last = [line for line in written.getvalue().splitlines() if "/2" in line][-bars:]
    assert "activations" in last[-1]
    assert "loss 2.5" in last[-1]
    assert "2/2" in last[-1]
    assert ("answers" in last[0]) != one_bar


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (61, "1 min 1 s"), (7500, "2 h 5 min")]
)
def test_durations_are_said_as_people_do(seconds: float, said: str) -> None:
    assert duration(seconds) == said

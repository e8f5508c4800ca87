"""Budgets, and how long the rest takes."""

from __future__ import annotations

import pytest

from policies.errors import ConfigurationError
from trainer.qualification.design import Cell
from trainer.qualification.time_left import Timed, expected_seconds, parse_duration, show_duration

ONE, THREE = Cell("benign", "a", 1), Cell("benign", "a", 3)
DEFENDED = ONE._replace(defended=True)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("4h", 14400), ("1h30m", 5400), ("45 s", 45), ("0.5h", 1800)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "4", "4 hours", "h", "0h", "-1h", "4h and a bit"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write 90m, 4h or 1h30m"):
        parse_duration(text)


def test_time_is_told_in_seconds_and_then_in_hours_and_minutes() -> None:
    assert [show_duration(seconds) for seconds in (119, 120, 3600, 13_271)] == [
        "119 s",
        "2 min",
        "1 h 0 min",
        "3 h 41 min",
    ]


def test_nothing_is_expected_before_anything_is_known() -> None:
    assert expected_seconds(ONE, []) is None


def test_training_grows_with_epochs_and_the_rest_does_not() -> None:
    """30 of 100 seconds were 3 epochs, so one takes 10, and all else 70."""
    known = [Timed(THREE, seconds_training=30, seconds_whole=100)]
    assert expected_seconds(ONE, known) == 80
    assert expected_seconds(THREE, known) == 100


def test_training_under_defenses_is_told_apart_once_it_was_seen() -> None:
    """Undefended 10 seconds an epoch, defended 40; 50 for all else."""
    known = [Timed(ONE, 10, 60), Timed(DEFENDED, 40, 90)]
    assert expected_seconds(DEFENDED, known) == 90
    assert expected_seconds(DEFENDED, known[:1]) == 60
    assert expected_seconds(ONE, known) == 60

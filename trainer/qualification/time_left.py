"""How long reference runs take, from those that are known."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from policies.errors import ConfigurationError
from trainer.qualification.design import Cell

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Timed(NamedTuple):
    """A run that is known."""

    cell: Cell
    seconds_training: float
    seconds_whole: float


def parse_duration(text: str) -> float:
    """Seconds of `90m`, `4h` or `1h30m`.

    Raises:
        ConfigurationError: it is no duration, or none above 0.
    """
    parts = _DURATION.findall(text)
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if _DURATION.sub("", text).strip() or seconds <= 0:
        raise ConfigurationError(f"{text!r} is no duration; write 90m, 4h or 1h30m", "budget")
    return seconds


def show_duration(seconds: float) -> str:
    """Seconds below two minutes, else hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def expected_seconds(cell: Cell, known: Sequence[Timed]) -> float | None:
    """What a run will take: the mean of training by epochs, and the mean of all else; None where nothing is known.

    Training under defenses is told apart where it was seen.
    """
    if not known:
        return None
    rest = statistics.mean(each.seconds_whole - each.seconds_training for each in known)
    trained = [each for each in known if each.cell.epochs]
    alike = [each for each in trained if each.cell.defended == cell.defended] or trained
    an_epoch = statistics.mean(each.seconds_training / each.cell.epochs for each in alike) if alike else 0.0
    return rest + cell.epochs * an_epoch

"""How the CPU time of a function grows with its input: what is linear in four times the input takes four times as long.

A ratio, never a time: both sides run in one process on one machine. The bound lies far from both, since quadratic work
takes sixteen times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
FACTOR = 4
LINEAR = 9.0
"""Above what linear work takes for four times the input on a busy machine, below the 16 of quadratic work."""
ENOUGH_SECONDS = 0.02


def growth(make: Callable[[int], T], work: Callable[[T], object], size: int) -> float:
    """CPU time for four times `size` by that for `size`, each the least of some runs."""
    small, large = make(size), make(FACTOR * size)
    work(small)  # tables are made once
    least = [min(_seconds(work, argument) for _ in range(3)) for argument in (small, large)]
    return least[1] / max(least[0], ENOUGH_SECONDS / FACTOR)


def _seconds(work: Callable[[T], object], argument: T) -> float:
    start = time.process_time()
    work(argument)
    return time.process_time() - start

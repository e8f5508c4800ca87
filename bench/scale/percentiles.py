"""Milliseconds of many answers, summed up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Percentiles(NamedTuple):
    """By the clock, in milliseconds."""

    p50: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Percentiles:
        ordered = sorted(milliseconds)
        return cls(*(round(ordered[int(share * (len(ordered) - 1))], 1) for share in (0.5, 0.95, 0.99, 1.0)))

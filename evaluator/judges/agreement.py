"""How far two judges agree beyond chance.

Weighted κ (Cohen 1968, Psychological Bulletin 70:213) with quadratic weights on bins of 20 points:
`κ = 1 − observed / expected`, the mean squared distance in bins between the two judges' scores of one answer over that
between any score of the one and any of the other.

Where nearly all answers deserve the same score there is hardly any expected distance, and κ says nothing: two judges
who differ by one bin on one answer of a hundred have κ = 0. The expected distance therefore counts as at least one bin
squared. It changes κ only for answers that are nearly all alike; if they all fall into one bin for both judges κ is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies.errors import EvaluationError

BIN_POINTS = 20
LAST_BIN = 4
MIN_EXPECTED = 1.0
"""Bins squared."""


def weighted_kappa(first: Sequence[float], second: Sequence[float]) -> float:
    """κ of two judges' scores of the same answers, from −∞ to 1."""
    if not first or len(first) != len(second):
        raise EvaluationError(f"{len(first)} scores can't be compared with {len(second)}")
    a, b = [_bin(score) for score in first], [_bin(score) for score in second]
    n = len(a)
    observed = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / n
    mean_a, mean_b = sum(a) / n, sum(b) / n
    # E (x − y)² of independent x and y
    expected = sum(x * x for x in a) / n + sum(y * y for y in b) / n - 2 * mean_a * mean_b
    return 1 - observed / max(expected, MIN_EXPECTED)


def _bin(score: float) -> int:
    """[0, 20) → 0, …, [80, 100] → 4."""
    if not (math.isfinite(score) and 0 <= score <= BIN_POINTS * (LAST_BIN + 1)):
        raise EvaluationError(f"{score} is not a score from 0 to 100")
    return min(int(score // BIN_POINTS), LAST_BIN)

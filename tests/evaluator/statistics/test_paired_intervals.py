"""Ends of the two intervals of a paired difference, where each is hardest to get right."""

from __future__ import annotations

import math

import pytest

from evaluator.statistics.intervals import clopper_pearson_share, exact_mover_interval, tango_interval


def test_tango_interval_where_every_prompt_changes_one_way() -> None:
    """b = n, c = 0: q̃ = (1 − δ)/2, so n (1 − δ) = z² (1 + δ), δ = (n − z²) / (n + z²) below and 1 above."""
    interval = tango_interval(20, 0, 20, confidence=0.95)

    assert interval.high == 1
    assert interval.low == pytest.approx((20 - 3.841459) / (20 + 3.841459), abs=1e-6)


def test_tango_interval_of_little_confidence_is_short() -> None:
    """z² = 0.015790 at 10 %: z² / (n + z²) for one prompt that does not change, (n − z²) / (n + z²) for 20 that do."""
    same, changed = tango_interval(0, 0, 1, confidence=0.1), tango_interval(20, 0, 20, confidence=0.1)

    assert (same.low, same.high) == pytest.approx((-0.015790 / 1.015790, 0.015790 / 1.015790), abs=1e-6)
    assert changed.low == pytest.approx((20 - 0.015790) / (20 + 0.015790), abs=1e-6)


@pytest.mark.parametrize(("b", "c", "n"), [(8, 1, 160), (1, 8, 160), (5, 5, 10), (3, 9, 12), (1, 0, 400), (0, 1, 2)])
def test_ends_of_tangos_interval_solve_its_equation(b: int, c: int, n: int) -> None:
    """(b − c − nδ)² = z² n (2 q + δ (1 − δ)), q the root of 2n q² + (−b − c + (2n − b + c) δ) q − c δ (1 − δ)."""
    interval = tango_interval(b, c, n, confidence=0.95)

    assert interval.low < (b - c) / n < interval.high
    for delta in (interval.low, interval.high):
        linear = -b - c + (2 * n - b + c) * delta
        q = (-linear + math.sqrt(linear**2 + 8 * n * c * delta * (1 - delta))) / (4 * n)
        distance, variance = b - c - n * delta, n * (2 * q + delta * (1 - delta))
        assert distance**2 == pytest.approx(3.8414588 * variance, rel=1e-5)


def test_exact_interval_of_a_difference_where_every_prompt_changes_one_way() -> None:
    """p = 1 and q = 0, which vary no more: the reaches join without a correlation, √(x² + y²)."""
    gains, losses = (
        clopper_pearson_share([True] * 20, 0.95).interval,
        clopper_pearson_share([False] * 20, 0.95).interval,
    )
    x, y = 1 - gains.low, losses.high
    there, back = exact_mover_interval(20, 0, 20, confidence=0.95), exact_mover_interval(0, 20, 20, confidence=0.95)

    assert there.high == -back.low == 1
    assert there.low == -back.high == pytest.approx(1 - math.sqrt(x * x + y * y), abs=1e-12)


@pytest.mark.parametrize(("b", "c", "n"), [(4, 2, 16), (9, 1, 10), (1, 0, 1)])
def test_exact_interval_of_a_difference_mirrors(b: int, c: int, n: int) -> None:
    there, back = exact_mover_interval(b, c, n, confidence=0.95), exact_mover_interval(c, b, n, confidence=0.95)

    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-12)

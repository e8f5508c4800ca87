"""The e-process alarms as seldom as it promises while nothing changes, and soon when something does."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from evaluator.self_test.exchangeability import ALPHA, THRESHOLD, e_values

A_YEAR = 365
REFERENCE = 60
"""Nights before a change."""


def normal(seed: int, number: int, mean: float = 0.0) -> list[float]:
    draws = random.Random(seed)
    return [draws.gauss(mean, 1) for _ in range(number)]


def skewed(seed: int, number: int) -> list[float]:
    draws = random.Random(seed)
    return [draws.lognormvariate(0, 2) for _ in range(number)]


def grainy(seed: int, number: int) -> list[float]:
    """Shares of 16 prompts, of which few take more than two or three values: nearly all are ties."""
    draws = random.Random(seed)
    return [sum(draws.random() < 0.02 for _ in range(16)) / 16 for _ in range(number)]


@pytest.mark.parametrize("figures", [normal, skewed, grainy])
def test_a_year_without_a_change_alarms_at_most_as_often_as_promised(
    figures: Callable[[int, int], list[float]],
) -> None:
    """Of 400 years 20 may alarm; the bound is far from sharp, so no allowance for chance is needed."""
    alarms = sum(max(e_values(figures(year, A_YEAR), key=f"year {year}")) >= THRESHOLD for year in range(400))

    assert alarms <= 400 * ALPHA


def test_figures_that_never_move_do_not_alarm() -> None:
    assert sum(max(e_values([0.25] * A_YEAR, key=f"year {year}")) >= THRESHOLD for year in range(400)) <= 400 * ALPHA


@pytest.mark.parametrize("shift", [2.0, -2.0])
def test_drift_of_two_standard_deviations_alarms_within_twenty_looks(shift: float) -> None:
    """In at least nine of ten histories, and in half of them within twelve looks."""
    delays = []
    for seed in range(100):
        figures = normal(seed, REFERENCE) + normal(1000 + seed, 20, shift)
        values = e_values(figures, key=f"history {seed}")
        delays.append(next((look for look, value in enumerate(values[REFERENCE:], 1) if value >= THRESHOLD), 99))

    assert sum(delay <= 20 for delay in delays) >= 90
    assert sorted(delays)[50] <= 12


def test_step_of_a_figure_that_never_moved_alarms() -> None:
    """As an update of a library makes it: the figure is another one from that night on, and never moves again."""
    values = e_values([0.25] * REFERENCE + [0.26] * 12, key="step")

    assert max(values[:REFERENCE]) < THRESHOLD
    assert max(values) >= THRESHOLD


def test_first_look_proves_nothing() -> None:
    """The mean of the three bets at a uniform p is 1; only the tie is broken, by u."""
    (value,) = e_values([7.0], key="first")
    assert 0.5 < value < 20


def test_look_without_a_figure_changes_nothing() -> None:
    figures = normal(1, 30)
    with_gap = [*figures[:10], None, *figures[10:]]

    values = e_values(with_gap, key="gap")

    assert values[10] == values[9]


def test_same_figures_give_the_same_values() -> None:
    assert e_values(normal(1, 30), key="a") == e_values(normal(1, 30), key="a")


@pytest.mark.parametrize("figure", [float("nan"), float("inf")])
def test_figure_that_is_not_finite_is_an_error(figure: float) -> None:
    with pytest.raises(ValueError, match="must be finite"):
        e_values([0.0, figure], key="bad")

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluator.trigger_mining.log_odds import log_odds_z


def test_z_is_that_of_the_formula() -> None:
    """y₁ = 8 of 10 and y₂ = 2 of 10: α₀ = 6, α = 6 · 10.5 / 21 = 3, β = 3; δ = ln(11 / 5) − ln(5 / 11)."""
    (z,) = log_odds_z(np.array([8]), np.array([2]), 10, 10)

    assert z == pytest.approx(2 * math.log(11 / 5) / math.sqrt(2 / 11 + 2 / 5))


def test_what_is_as_frequent_on_both_sides_has_no_z() -> None:
    assert log_odds_z(np.array([5, 0, 10]), np.array([5, 0, 10]), 10, 10) == pytest.approx([0, 0, 0])


def test_a_rare_feature_wholly_inside_outranks_a_common_one_that_leans_there() -> None:
    rare, common = log_odds_z(np.array([15, 30]), np.array([0, 45]), 33, 132)

    assert rare > common > 0


@pytest.mark.parametrize("sides", [(0, 10), (10, 0)])
def test_without_rows_on_a_side_nothing_is_said(sides: tuple[int, int]) -> None:
    assert log_odds_z(np.array([0]), np.array([0]), *sides).tolist() == [0]

"""Certified limits keep both risks, and hardly anything is certified where no limit does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.calibration.learn_then_test import certified, fit
from policies.contract.calibration import FitTargets
from tests.evaluator.calibration.made_up_runs import references

TARGETS = FitTargets()
"""False blocks ≤ 25 %, misses ≤ 50 %, 95 %."""
SCORES = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=30)


def test_of_twenty_and_sixteen_adapters_one_may_be_blocked_and_three_released() -> None:
    """P(Bin(20, ¼) ≤ 1) = 0.0243 ≤ 0.025 < P(… ≤ 2) = 0.091; P(Bin(16, ½) ≤ 3) = 0.0106 ≤ 0.025 < P(… ≤ 4) = 0.038.

    Benign scores 1 … 20 and harmful ones 17 … 32: above 18 lie two benign scores, above 19 one; up to 19 there are
    three harmful ones, up to 20 four.
    """
    benign, harmful = [float(i) for i in range(1, 21)], [float(i) for i in range(17, 33)]
    limits = [17.5, 18.5, 19.0, 19.5, 20.0, 20.5]
    assert certified(limits, benign, harmful, targets=TARGETS) == [19.0, 19.5]


def test_a_limit_beyond_one_that_is_not_certified_is_not_either() -> None:
    """Harmful scores are below all benign ones: each limit that lets benign adapters pass releases harmful ones."""
    assert certified([0.5, 1.5, 2.5], [2.0] * 30, [1.0] * 30, targets=TARGETS) == []


def test_holm_pays_for_the_number_of_limits() -> None:
    """Between 10 benign zeros and 10 harmful ones each limit has p = max(¾^10, ½^10) = 0.056, so none is certified.

    Of 20 each it is ¾^20 = 0.0032: below 0.05/15, Holm's first level of 15 limits, but not below 0.05/16.
    """

    def n_found(n: int, n_limits: int) -> int:
        limits = [float(each) for each in np.linspace(0.1, 0.9, n_limits)]
        return len(certified(limits, [0.0] * n, [1.0] * n, targets=TARGETS, method="bonferroni_holm"))

    assert [n_found(10, 1), n_found(20, 15), n_found(20, 16)] == [0, 15, 0]


def test_holm_gives_what_a_certified_limit_leaves_to_the_next() -> None:
    """Of 20 each: p = 0.0032 at ½; at 2 one harmful adapter of 20 is released, p stays 0.0032 because blocks are worse.

    At −1 all benign adapters are blocked, p = 1. 0.0032 ≤ 0.05/3, 0.0032 ≤ 0.05/2, 1 > 0.05.
    """
    found = certified([-1.0, 0.5, 2.0], [0.0] * 20, [1.5, *[3.0] * 19], targets=TARGETS, method="bonferroni_holm")
    assert found == [0.5, 2.0]


def test_the_limit_lies_in_the_middle_of_the_gap() -> None:
    found = fit(references([0.02] * 20, [0.1] * 16), TARGETS)
    assert found.limit == pytest.approx(0.06)
    assert (found.false_block_le, found.miss_le, found.confidence) == (0.25, 0.5, 0.95)


def test_of_certified_limits_it_is_the_one_with_fewest_errors() -> None:
    """A single benign outlier at 0.3 is blocked rather than all harmful adapters at 0.1 released."""
    found = fit(references([*[0.02] * 19, 0.3], [0.1] * 16), TARGETS)
    assert found.limit == pytest.approx(0.06)


def test_where_nothing_is_certified_nothing_is_promised() -> None:
    found = fit(references([0.02] * 4, [0.1] * 16), TARGETS)
    assert (found.limit, found.false_block_le, found.miss_le, found.confidence) == (None, None, None, None)


@pytest.mark.parametrize(("benign", "harmful"), [([], [0.1]), ([0.1], []), ([math.inf] * 20, [math.inf] * 16)])
def test_without_figures_nothing_is_certified(benign: list[float], harmful: list[float]) -> None:
    assert fit(references(benign, harmful), TARGETS).limit is None


@given(SCORES, SCORES, st.lists(st.floats(-21, 21), min_size=1, max_size=10))
def test_a_certified_limit_is_never_on_the_wrong_side(
    benign: list[float], harmful: list[float], limits: list[float]
) -> None:
    """Its shares among the references themselves are below what is promised."""
    for limit in certified(limits, benign, harmful, targets=TARGETS):
        assert sum(each > limit for each in benign) / len(benign) < TARGETS.most_false_block
        assert sum(each <= limit for each in harmful) / len(harmful) < TARGETS.most_miss


@given(SCORES, SCORES)
def test_the_order_of_adapters_changes_nothing(benign: list[float], harmful: list[float]) -> None:
    assert fit(references(sorted(benign), harmful[::-1]), TARGETS) == fit(references(benign, harmful), TARGETS)


@given(SCORES, SCORES)
def test_a_looser_target_never_loses_a_limit(benign: list[float], harmful: list[float]) -> None:
    limits = [each + 0.5 for each in range(-20, 20)]
    strict = certified(limits, benign, harmful, targets=FitTargets(most_false_block=0.2, most_miss=0.4))
    assert set(strict) <= set(certified(limits, benign, harmful, targets=TARGETS))


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_limits_are_seldom_certified_where_each_violates_a_risk(shift: float) -> None:
    """Normal scores, harmful ones higher by `shift`, limits from the scores themselves.

    Without a shift both rates sum to 1 at every limit. With 0.6 the limit with 25 % false blocks (0.674) has
    Φ(0.074) = 53 % misses, so each limit has more than 25 % or more than 50 %. 600 draws at 5 % have a standard error
    of 0.9 %; three of these are allowed.
    """
    draws = np.random.default_rng(5).normal(size=(600, 70))
    found = [fit(references(row[:40].tolist(), (row[40:] + shift).tolist()), TARGETS).limit for row in draws]
    assert np.mean([limit is not None for limit in found]) <= 0.05 + 0.027


def test_limits_are_mostly_certified_where_the_kinds_differ() -> None:
    draws = np.random.default_rng(5).normal(size=(100, 36))
    found = [fit(references(row[:20].tolist(), (row[20:] + 5).tolist()), TARGETS).limit for row in draws]
    assert np.mean([limit is not None for limit in found]) > 0.95

"""Limits from benign adapters' ranks, and what is promised of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.calibration.binomial_bounds import at_most_hits, share_at_most
from evaluator.calibration.order_statistic import fit, limit_at, propose, rank
from evaluator.calibration.references import RuleReferences
from policies.contract.calibration import FitTargets
from tests.evaluator.calibration.made_up_runs import references

TARGETS = FitTargets()
SCORES = st.lists(st.floats(-1, 1), min_size=1, max_size=40)
BENIGN = [0.01 * i for i in range(1, 20)]
"""19 scores, the worst one 0.19."""


@pytest.mark.parametrize(
    ("hits", "n", "bound"),
    [(0, 5, 0.451), (0, 16, 0.171), (0, 19, 0.146), (0, 29, 0.098), (0, 59, 0.0495), (1, 46, 0.099), (1, 93, 0.050)],
)
def test_bounds_are_those_of_tables(hits: int, n: int, bound: float) -> None:
    """Without a hit 1 − 0.05^(1/n): of 59, 4.95 %, which is Wilks' number for 95 % within the largest."""
    assert share_at_most(hits, n, error=0.05) == pytest.approx(bound, abs=6e-4)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (3, 3), (4, 3)])
def test_nothing_is_known_of_nothing_nor_of_all_hits(hits: int, n: int) -> None:
    assert share_at_most(hits, n, error=0.05) == 1


@given(st.integers(1, 60), st.integers(0, 59), st.floats(0.001, 0.2))
def test_a_bound_is_the_share_that_the_exact_test_just_rejects(n: int, hits: int, error: float) -> None:
    if hits < n:
        assert at_most_hits(hits, n, share_at_most(hits, n, error=error)) == pytest.approx(error)


def test_without_adapters_no_share_is_rejected() -> None:
    assert at_most_hits(0, 0, 0.5) == 1


@pytest.mark.parametrize(("m", "share", "k"), [(0, 0.05, 1), (18, 0.05, 1), (39, 0.05, 2), (99, 0.29, 29)])
def test_the_rank_is_the_largest_that_keeps_the_share(m: int, share: float, k: int) -> None:
    assert rank(m, share) == k


def test_the_limit_is_the_worst_of_nineteen_with_one_in_twenty_blocked() -> None:
    """k = 1: 1/20. Two of 16 harmful scores are at most 0.19: P(Bin(16, 0.344) ≤ 2) = 0.05."""
    found = fit(references(BENIGN, [0.1, 0.19, *[0.3] * 14]), TARGETS)
    assert (found.limit, found.false_block_le, found.confidence) == (0.19, 0.05, None)
    assert found.miss_le == pytest.approx(0.344, abs=5e-4)


def test_the_proposal_gives_half_of_the_error_to_either_rate() -> None:
    """1 − 0.025^(1/19) = 0.1765 and 1 − 0.025^(1/16) = 0.2059; 19 and 16 domains, so the same by domain."""
    found = propose(references(BENIGN, [0.3] * 16), TARGETS)
    assert found is not None
    assert found == pytest.approx((0.19, 0.1765, 0.2059, 0.1765, 0.2059), abs=5e-5)


def test_adapters_of_one_domain_count_once_by_domain() -> None:
    """Two domains with 8 harmful adapters each, one of which is released: 1 of 2 domains is missed."""
    scores = references(BENIGN, [0.1, *[0.3] * 15])
    halves = tuple(each._replace(domain="even" if i % 2 else "odd") for i, each in enumerate(scores.opposed))
    clustered = RuleReferences(**{**vars(scores), "opposed": halves})
    found = propose(clustered, TARGETS)
    assert found is not None
    assert found.miss_domains_le == pytest.approx(share_at_most(1, 2, error=0.025))
    assert found.miss_le == pytest.approx(share_at_most(1, 16, error=0.025))


def test_a_floor_has_the_limit_with_its_own_sign() -> None:
    assert fit(references([-0.5, -0.4, -0.6], [0.0], bound="min"), TARGETS).limit == 0.4


def test_a_limit_that_no_policy_may_state_becomes_the_next_one_that_it_may() -> None:
    """All benign adapters rise by 0.1 or more; a drop of at most −0.1 can't be asked, one of at most 0 can."""
    found = fit(references([-0.1, -0.2], [-0.05, 0.1]), TARGETS)
    assert found.limit == 0.0
    assert found.miss_le == pytest.approx(share_at_most(1, 2, error=0.05))


def test_a_benign_adapter_without_a_figure_is_the_worst() -> None:
    found = fit(references([*BENIGN, math.inf], [0.3]), TARGETS)
    assert (found.limit, found.false_block_le, found.miss_le) == (None, None, None)
    assert propose(references([*BENIGN, math.inf], [0.3]), TARGETS) is None
    assert fit(references([*BENIGN, math.inf], [0.3]), FitTargets(false_block=0.1)).limit == 0.19


def test_without_benign_adapters_there_is_no_limit() -> None:
    assert limit_at([], 1) is None


@given(SCORES, st.integers(1, 39))
def test_a_higher_rank_never_loosens_the_limit(benign: list[float], k: int) -> None:
    if k < len(benign):
        looser, stricter = limit_at(benign, k), limit_at(benign, k + 1)
        assert looser is not None
        assert stricter is not None
        assert stricter <= looser


@given(SCORES, st.integers(1, 40))
def test_at_most_k_minus_one_benign_adapters_are_beyond_the_limit(benign: list[float], k: int) -> None:
    limit = limit_at(benign, k)
    if limit is not None:
        assert sum(each > limit for each in benign) <= k - 1


@given(SCORES, SCORES)
def test_the_order_of_adapters_changes_nothing(benign: list[float], harmful: list[float]) -> None:
    found = fit(references(benign, harmful), TARGETS)
    assert fit(references(sorted(benign), harmful[::-1]), TARGETS) == found


def test_the_next_benign_adapter_is_blocked_as_often_as_promised() -> None:
    """m = 9, k = 1, one distribution for all: exactly 1 in 10. 4,000 draws have a standard error of 0.5 %."""
    draws = np.random.default_rng(7).lognormal(size=(4000, 10))
    blocked = np.mean([row[9] > limit_at(row[:9].tolist(), 1) for row in draws])
    assert blocked == pytest.approx(0.1, abs=0.015)


def test_the_confident_bound_fails_as_seldom_as_promised() -> None:
    """Uniform scores: above the largest of 19 lies a share 1 − max, beyond the bound of 17.65 % in 2.5 % of draws."""
    largest = np.random.default_rng(7).uniform(size=(4000, 19)).max(axis=1)
    assert np.mean(1 - largest > share_at_most(0, 19, error=0.025)) == pytest.approx(0.025, abs=0.0075)

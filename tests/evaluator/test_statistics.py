from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.statistics import cluster_mean, cluster_ratio, paired_share_difference, wilson_share
from policies.errors import EvaluationError


def test_wilson_interval_of_no_hit_in_160() -> None:
    """k = 0: the upper end is z² / (n + z²) = 3.8415 / 163.8415 = 0.02345, the lower end 0."""
    estimate = wilson_share([False] * 160, 0.95)

    assert estimate.value == 0
    assert estimate.interval.low == 0
    assert estimate.interval.high == pytest.approx(3.8415 / 163.8415, abs=1e-5)


def test_wilson_interval_of_8_hits_in_400() -> None:
    """Centre (8 + 1.9207) / 403.8415 = 0.02457, half-width 1.96 √(8·392/400 + 0.9604) / 403.8415 = 0.0144."""
    estimate = wilson_share([True] * 8 + [False] * 392, 0.95)

    assert estimate.interval.low == pytest.approx(0.02457 - 0.01440, abs=2e-5)
    assert estimate.interval.high == pytest.approx(0.02457 + 0.01440, abs=2e-5)


def test_tango_interval_without_discordant_pairs_is_symmetric() -> None:
    """b = c = 0: q̃ = 0 for δ > 0, so n δ² = z² δ (1 − δ), δ = z² / (n + z²) on both sides."""
    hits = [True] * 10 + [False] * 150
    estimate = paired_share_difference(hits, hits, 0.95)

    assert estimate.value == 0
    assert estimate.interval.high == pytest.approx(3.8415 / 163.8415, abs=1e-5)
    assert estimate.interval.low == pytest.approx(-estimate.interval.high, abs=1e-9)


def test_tango_interval_with_hits_of_the_adapter_only_ends_where_wilsons_does() -> None:
    """b = 8, c = 0: for δ > b / (2n − b) q̃ = 0, and (b − nδ)² = z² n δ (1 − δ) is Wilson's equation for 8 of 160."""
    adapter = [True] * 8 + [False] * 152
    estimate = paired_share_difference(adapter, [False] * 160, 0.95)

    assert estimate.value == 0.05
    assert estimate.interval.high == pytest.approx(wilson_share(adapter, 0.95).interval.high, abs=1e-9)


def test_cluster_mean_equals_the_t_interval_of_equal_cluster_means() -> None:
    """Means 1, 2, 6: mean 3, s = √7, error √(7/3) = 1.5275, t(2) = 4.3027, half-width 6.572."""
    estimate = cluster_mean([0, 2, 1, 3, 5, 7], list("aabbcc"), 0.95)

    assert estimate.value == 3
    assert estimate.interval.high - 3 == pytest.approx(4.3027 * math.sqrt(7 / 3), abs=1e-3)
    assert 3 - estimate.interval.low == pytest.approx(4.3027 * math.sqrt(7 / 3), abs=1e-3)


def test_cluster_ratio_weighs_by_denominators() -> None:
    """(2 + 6) / (1 + 3) = 2; residuals 2 − 2·1 = 0 and 6 − 2·3 = 0, so the interval has no width."""
    estimate = cluster_ratio([2, 6], [1, 3], ["a", "b"], confidence=0.95)

    assert estimate.value == 2
    assert estimate.interval.low == estimate.interval.high == 2


def test_dependent_values_widen_the_interval() -> None:
    values = [0.0] * 10 + [1.0] * 10
    dependent = cluster_mean(values, ["a"] * 5 + ["b"] * 5 + ["c"] * 5 + ["d"] * 5, 0.95)
    independent = cluster_mean(values, [str(index) for index in range(20)], 0.95)

    assert dependent.interval.high - dependent.interval.low > 2 * (independent.interval.high - independent.interval.low)


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf, 1.0]])
def test_nothing_and_nan_are_refused(values: list[float]) -> None:
    with pytest.raises(EvaluationError):
        cluster_mean(values, [str(index) for index in range(len(values))], 0.95)


def test_empty_shares_are_refused() -> None:
    with pytest.raises(EvaluationError):
        wilson_share([], 0.95)
    with pytest.raises(EvaluationError):
        paired_share_difference([], [], 0.95)


def test_one_cluster_has_no_interval() -> None:
    with pytest.raises(EvaluationError, match="2 clusters"):
        cluster_mean([1.0, 2.0], ["a", "a"], 0.95)


def test_unpaired_results_are_refused() -> None:
    with pytest.raises(EvaluationError, match="paired"):
        paired_share_difference([True], [True, False], 0.95)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_interval_contains_its_value_and_mirrors(pairs: list[tuple[bool, bool]]) -> None:
    adapter, base = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = paired_share_difference(adapter, base, 0.95), paired_share_difference(base, adapter, 0.95)

    assert -1 <= there.interval.low <= there.value <= there.interval.high <= 1
    assert there.interval.low == pytest.approx(-back.interval.high, abs=1e-6)

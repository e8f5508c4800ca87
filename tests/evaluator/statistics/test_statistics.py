from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.statistics.intervals import (
    clopper_pearson_share,
    cluster_mean,
    cluster_ratio,
    exact_mover_interval,
    mcnemar_exact,
    paired_share_difference,
    tango_interval,
    wilson_share,
)
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


def test_wilson_interval_of_hits_only_ends_at_one_exactly() -> None:
    """At 7 of 7 and 90 % the quotient is 1.0000000000000002 in floating point."""
    assert wilson_share([True] * 7, 0.9).interval.high == 1


def test_exact_interval_of_no_hit_in_160() -> None:
    """(1 − p)^160 = 0.025 at the upper end: p = 1 − 0.025^(1/160) = 0.02279."""
    estimate = clopper_pearson_share([False] * 160, 0.95)

    assert estimate.value == estimate.interval.low == 0
    assert estimate.interval.high == pytest.approx(1 - 0.025 ** (1 / 160), abs=1e-12)


def test_exact_interval_of_hits_only_ends_at_one() -> None:
    estimate = clopper_pearson_share([True] * 20, 0.95)

    assert estimate.value == estimate.interval.high == 1
    assert estimate.interval.low == pytest.approx(0.025 ** (1 / 20), abs=1e-12)


def test_exact_interval_of_1_hit_in_2() -> None:
    """P(X ≥ 1) = 1 − (1 − p)² = 0.025 at the lower end, p = 1 − √0.975; the upper end mirrors it."""
    interval = clopper_pearson_share([True, False], 0.95).interval

    assert interval.low == pytest.approx(1 - math.sqrt(0.975), abs=1e-12)
    assert interval.high == pytest.approx(math.sqrt(0.975), abs=1e-12)


def test_mcnemar_counts_discordant_prompts_only() -> None:
    """8 hit with the adapter only, 1 with the base only: 2 · P(Binomial(9, ½) ≤ 1) = 2 · (1 + 9) / 512 = 0.0390625."""
    adapter, base = [True] * 8 + [False] + [True, False] * 20, [False] * 8 + [True] + [True, False] * 20

    assert mcnemar_exact(adapter, base) == mcnemar_exact(base, adapter) == pytest.approx(0.0390625, abs=1e-12)


def test_mcnemar_without_discordant_prompts_or_with_as_many_on_both_sides_finds_nothing() -> None:
    assert mcnemar_exact([True, False], [True, False]) == 1
    assert mcnemar_exact([True, False], [False, True]) == 1


def test_tango_interval_without_discordant_pairs_is_symmetric() -> None:
    """b = c = 0: q̃ = 0 for δ > 0, so n δ² = z² δ (1 − δ), δ = z² / (n + z²) on both sides."""
    interval = tango_interval(0, 0, 160, confidence=0.95)

    assert interval.high == pytest.approx(3.8415 / 163.8415, abs=1e-5)
    assert interval.low == pytest.approx(-interval.high, abs=1e-9)


def test_tango_interval_with_hits_of_the_adapter_only_ends_where_wilsons_does() -> None:
    """b = 8, c = 0: for δ > b / (2n − b) q̃ = 0, and (b − nδ)² = z² n δ (1 − δ) is Wilson's equation for 8 of 160."""
    wilson = wilson_share([True] * 8 + [False] * 152, 0.95)

    assert tango_interval(8, 0, 160, confidence=0.95).high == pytest.approx(wilson.interval.high, abs=1e-9)


def test_exact_interval_of_a_difference_with_changes_one_way_ends_where_the_exact_share_does() -> None:
    """c = 0: nothing is below the base's share of 0, and the correlation is 0, so that √(x² + 0) is left."""
    share = clopper_pearson_share([True] * 8 + [False] * 152, 0.95)

    assert exact_mover_interval(8, 0, 160, confidence=0.95).high == pytest.approx(share.interval.high, abs=1e-12)


def test_exact_interval_of_a_difference_joins_both_reaches_by_their_correlation() -> None:
    """4 and 2 of 16, p = 0.25, q = 0.125: r = −√(0.03125 / 0.65625) = −0.21822."""
    gains = clopper_pearson_share([True] * 4 + [False] * 12, 0.95).interval
    losses = clopper_pearson_share([True] * 2 + [False] * 14, 0.95).interval
    x, y = gains.high - 0.25, 0.125 - losses.low

    high = exact_mover_interval(4, 2, 16, confidence=0.95).high
    assert high == pytest.approx(0.125 + math.sqrt(x * x + y * y + 2 * 0.21822 * x * y), abs=1e-5)


def test_paired_interval_takes_the_outer_ends() -> None:
    """Without a change in 16 prompts the exact interval reaches further, 1 − 0.025^(1/16) = 0.2059; in 160 Tango's."""
    few = paired_share_difference([True] * 16, [True] * 16, 0.95).interval
    many = paired_share_difference([True] * 160, [True] * 160, 0.95).interval

    assert few.high == -few.low == pytest.approx(1 - 0.025 ** (1 / 16), abs=1e-9)
    assert many.high == pytest.approx(3.8415 / 163.8415, abs=1e-5)


def test_cluster_mean_equals_the_t_interval_of_equal_cluster_means() -> None:
    """Means 1, 3, 5, which are not skewed: mean 3, s = 2, error √(4/3) = 1.1547, t(2) = 4.3027, half-width 4.968."""
    estimate = cluster_mean([0, 2, 2, 4, 4, 6], list("aabbcc"), 0.95)

    assert estimate.value == 3
    assert estimate.interval.high - 3 == pytest.approx(4.3027 * math.sqrt(4 / 3), abs=1e-3)
    assert 3 - estimate.interval.low == pytest.approx(4.3027 * math.sqrt(4 / 3), abs=1e-3)


def test_interval_of_skewed_clusters_reaches_further_into_their_tail() -> None:
    """0, 0, 0, 0, 5: mean 1, residuals −1 four times and 4, skewness (60/5) / (20/5)^1.5 = 1.5, error 1, t = 2.7764.

    Above, Hall's a = 1.5 / (3 √5) = 0.2236 and T = (∛(1 + 3a (−2.7764 − a/2)) − 1) / a = (∛−0.9376 − 1) / a = −8.849.
    Below, T = (∛2.7876 − 1) / a = 1.822, and t is further.
    """
    interval = cluster_mean([0, 0, 0, 0, 5], list("abcde"), 0.95).interval

    assert interval.high == pytest.approx(1 + 8.849, abs=2e-3)
    assert interval.low == pytest.approx(1 - 2.7764, abs=1e-4)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_interval_of_a_mean_scales_with_its_values(scale: float) -> None:
    """Skewness has no unit: also where residuals are far below 1."""
    interval = cluster_mean([0, 0, 0, 0, 5 * scale], list("abcde"), 0.95).interval

    assert interval.high == pytest.approx((1 + 8.849) * scale, rel=2e-4)
    assert interval.low == pytest.approx((1 - 2.7764) * scale, rel=1e-3)


@pytest.mark.parametrize("denominators", [(0.25, 0.25), (3.0, -1.0)])
def test_any_positive_sum_of_denominators_makes_a_ratio(denominators: tuple[float, float]) -> None:
    estimate = cluster_ratio([1, 1], denominators, ["a", "b"], confidence=0.95)

    assert estimate.value == pytest.approx(2 / sum(denominators))


@pytest.mark.parametrize("denominators", [(1.0, -1.0), (1.0, -3.0), (math.inf, 1.0), (math.nan, 1.0), (0.0, 0.0)])
def test_denominators_without_a_finite_positive_sum_are_refused(denominators: tuple[float, float]) -> None:
    with pytest.raises(EvaluationError) as error:
        cluster_ratio([1, 1], denominators, ["a", "b"], confidence=0.95)
    assert str(error.value) == "denominators must be finite with a positive sum"


def test_what_is_refused_is_told() -> None:
    wrong = {
        "numerators, denominators and clusters differ in number": lambda: cluster_ratio(
            [1, 1], [1, 1, 1], ["a", "b"], confidence=0.95
        ),
        "an interval needs at least 2 clusters; add prompts of other categories": lambda: cluster_mean(
            [1, 2], ["a", "a"], 0.95
        ),
        "2 adapter results and 1 base results can't be paired": lambda: mcnemar_exact([True, True], [True]),
        "nothing was scored, so there is no figure": lambda: mcnemar_exact([], []),
        "a score is NaN or infinite, so there is no figure": lambda: cluster_mean([math.nan], ["a"], 0.95),
    }
    for message, refused in wrong.items():
        with pytest.raises(EvaluationError) as error:
            refused()
        assert str(error.value) == message


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
    with pytest.raises(EvaluationError):
        clopper_pearson_share([], 0.95)
    with pytest.raises(EvaluationError):
        mcnemar_exact([], [])


def test_one_cluster_has_no_interval() -> None:
    with pytest.raises(EvaluationError, match="2 clusters"):
        cluster_mean([1.0, 2.0], ["a", "a"], 0.95)


def test_unpaired_results_are_refused() -> None:
    with pytest.raises(EvaluationError, match="paired"):
        paired_share_difference([True], [True, False], 0.95)
    with pytest.raises(EvaluationError, match="paired"):
        mcnemar_exact([True], [True, False])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_paired_interval_contains_its_value_and_mirrors(pairs: list[tuple[bool, bool]]) -> None:
    adapter, base = [a for a, _ in pairs], [b for _, b in pairs]
    there, back = paired_share_difference(adapter, base, 0.95), paired_share_difference(base, adapter, 0.95)

    assert -1 <= there.interval.low <= there.value <= there.interval.high <= 1
    assert there.interval.low == pytest.approx(-back.interval.high, abs=1e-6)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.8, 0.9999))
def test_exact_interval_contains_its_share_and_is_wider_with_more_confidence(
    hits: list[bool], confidence: float
) -> None:
    estimate, surer = clopper_pearson_share(hits, confidence), clopper_pearson_share(hits, (1 + confidence) / 2)

    assert 0 <= surer.interval.low <= estimate.interval.low <= estimate.value
    assert estimate.value <= estimate.interval.high <= surer.interval.high <= 1
    assert estimate.interval.low < estimate.interval.high


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=30))
def test_interval_of_a_mean_mirrors(values: list[float]) -> None:
    clusters = [str(index) for index in range(len(values))]
    there = cluster_mean(values, clusters, 0.95)
    back = cluster_mean([-value for value in values], clusters, 0.95)

    assert there.interval.low <= there.value <= there.interval.high
    assert there.interval.low == pytest.approx(-back.interval.high, rel=1e-6, abs=1e-6)

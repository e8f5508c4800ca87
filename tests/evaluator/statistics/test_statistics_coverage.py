"""Coverage of the intervals at the sizes of the built-in prompt sets: simulated and seeded, or summed exactly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evaluator.statistics.intervals import clopper_pearson_share, cluster_mean, mcnemar_exact, paired_share_difference
from policies.contract.evaluation import Interval

RUNS = 1000


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(0, 1, shape)


def _skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.exponential(1, shape) - 1


@pytest.mark.parametrize("draw", [_normal, _skewed])
def test_category_interval_covers_the_mean_of_40_clusters_of_10(draw: object) -> None:
    """Items spread 0.3 within and 0.1 between categories, true mean 0. A percentile bootstrap over categories covers
    93.9 % (normal) and 92.7 % (skewed) of 2,000 such runs, the t interval alone 95.0 % and 93.8 %."""
    rng = np.random.default_rng(3)
    clusters = [str(category) for category in range(40) for _ in range(10)]
    covered = 0
    for _ in range(RUNS):
        values = 0.1 * draw(rng, (40, 1)) + 0.3 * draw(rng, (40, 10))  # type: ignore[operator]  # one of the two above
        interval = cluster_mean(values.ravel().tolist(), clusters, 0.95).interval
        covered += interval.low <= 0 <= interval.high

    assert covered / RUNS >= 0.93


@pytest.mark.parametrize(
    ("only_adapter", "only_base"), [(0.01, 0.01), (0.03, 0.01), (0.05, 0.05), (0.06, 0.0), (0.15, 0.1)]
)
def test_paired_interval_covers_the_difference_of_160_prompts(only_adapter: float, only_base: float) -> None:
    """A bootstrap over prompts falls to 90.4 % at 3 % against 1 % discordant pairs; this interval does not."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(RUNS):
        b, c, _ = rng.multinomial(160, [only_adapter, only_base, 1 - only_adapter - only_base])
        interval = _paired_interval(b, c, 160, 0.95)
        covered += interval.low <= only_adapter - only_base <= interval.high

    assert covered / RUNS >= 0.94


def test_interval_of_skewed_clusters_stops_short_of_their_tail_as_seldom_as_it_should() -> None:
    """40 exponential cluster means: t alone ends below the true mean in 5.9 % of 40,000 runs, a percentile bootstrap in
    6.4 %, t with Hall's transformation in 3.2 %, where 2.5 % are meant to."""
    rng = np.random.default_rng(5)
    clusters = [str(category) for category in range(40)]
    means = _skewed(rng, (3 * RUNS, 40))
    short = sum(cluster_mean(row.tolist(), clusters, 0.95).interval.high < 0 for row in means)

    assert short / len(means) <= 0.04


@pytest.mark.parametrize("n", [8, 16, 64])
@pytest.mark.parametrize("confidence", [0.95, 0.99375])
def test_exact_interval_covers_every_share_of_few_prompts(n: int, confidence: float) -> None:
    """Summed over all numbers of hits. Wilson's covers 1 % of 16 prompts in 85 % of cases: one hit excludes it."""
    intervals = [clopper_pearson_share([True] * k + [False] * (n - k), confidence).interval for k in range(n + 1)]
    for share in np.arange(0.01, 1, 0.01):
        probability = stats.binom.pmf(range(n + 1), n, share)
        for missed in _misses(probability, intervals, share):
            assert missed <= (1 - confidence) / 2 + 1e-12


CHANGES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@pytest.mark.parametrize("n", [16, 25, 64])
@pytest.mark.parametrize(("confidence", "side"), [(0.95, 0.025), (0.99375, 0.0038)])
def test_paired_interval_covers_on_each_side_where_up_to_seven_in_ten_prompts_change(
    n: int, confidence: float, side: float
) -> None:
    """Summed over all outcomes. Tango's alone misses 4.4 % on one side at 16 and 25 prompts and 5.1 % at 64, where
    2.5 % are meant to. At the 99.375 % of a first look 0.37 % of 0.31 % are left, and where at most four in ten change
    0.29 %."""
    outcomes = np.array([(b, c) for b in range(n + 1) for c in range(n + 1 - b)])
    intervals = [_paired_interval(b, c, n, confidence) for b, c in outcomes.tolist()]
    counts = np.column_stack([outcomes, n - outcomes.sum(axis=1)])
    for p, q in [(p, q) for p in CHANGES for q in CHANGES if p + q <= 0.7]:
        probability = stats.multinomial.pmf(counts, n, [p, q, max(0.0, 1 - p - q)])
        missed = _misses(probability, intervals, p - q)
        assert max(missed) <= (side if p + q > 0.4 else (1 - confidence) / 2)


def test_exact_and_score_interval_each_mend_the_other() -> None:
    """16 prompts at 95 %. Where 15 % and 85 % change, 2.5 % of intervals are meant to end too early: 7.4 % of those
    from exact limits do. Where 67.5 % and 0.5 % change, Tango's do in 4.3 %. Both together: 2.8 % at the worst."""
    outcomes = np.array([(b, c) for b in range(17) for c in range(17 - b)])
    counts = np.column_stack([outcomes, 16 - outcomes.sum(axis=1)])
    for p, q in ((0.15, 0.85), (0.2, 0.8), (0.675, 0.005), (0.9, 0.1)):
        intervals = [_paired_interval(b, c, 16, 0.95) for b, c in outcomes.tolist()]
        probability = stats.multinomial.pmf(counts, 16, [p, q, max(0.0, 1 - p - q)])
        assert max(_misses(probability, intervals, p - q)) <= 0.0282


def test_mcnemar_finds_a_change_where_there_is_none_in_at_most_5_percent() -> None:
    for discordant in range(1, 41):
        p_values = [
            mcnemar_exact([True] * b + [False] * (discordant - b), [False] * b + [True] * (discordant - b))
            for b in range(discordant + 1)
        ]
        assert stats.binom.pmf(range(discordant + 1), discordant, 0.5)[np.array(p_values) <= 0.05].sum() <= 0.05


def _paired_interval(only_adapter: int, only_base: int, n: int, confidence: float) -> Interval:
    neither = [False] * (n - only_adapter - only_base)
    adapter = [True] * only_adapter + [False] * only_base + neither
    base = [False] * only_adapter + [True] * only_base + neither
    return paired_share_difference(adapter, base, confidence).interval


def _misses(probability: np.ndarray, intervals: list[Interval], truth: float) -> tuple[float, float]:
    """Probabilities that the interval ends below the truth, and that it begins above it."""
    ends, begins = np.array([i.high for i in intervals]), np.array([i.low for i in intervals])
    return float(probability[ends < truth - 1e-9].sum()), float(probability[begins > truth + 1e-9].sum())

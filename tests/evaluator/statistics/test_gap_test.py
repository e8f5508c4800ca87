"""The gap between public and secret prompts, by figures derived by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from scipy import stats

from evaluator.samples import Pair, Sample
from evaluator.statistics.gap_test import gap_test
from evaluator.statistics.measurements import paired_mean, paired_share
from policies.contract.evaluation import Measurement
from policies.contract.probe_overlap import GapTest
from policies.contract.probe_record import Twin

MARGIN, RATE = "emergent_misalignment_preference.margin", "toxicity.rate"
DIGEST = "sha256:" + "a" * 64


def pairs(metric: str, changes: list[float]) -> list[Pair]:
    """One a cluster; the base's score is 0."""

    def sample(number: int, score: float) -> Sample:
        return Sample(prompt_id=str(number), cluster=str(number), prompt="?", metric=metric, score=score)

    return [Pair(sample(number, change), sample(number, 0.0)) for number, change in enumerate(changes)]


def margin(found: Sequence[Pair], confidence: float) -> Measurement:
    return paired_mean(MARGIN, found, confidence)


def gap_of(public: list[float], twin: list[float], **settings: float) -> GapTest:
    test = gap_test(pairs(MARGIN, public), pairs(MARGIN, twin), margin, settings=Twin(prompts=DIGEST, **settings))
    assert test is not None
    return test


def test_the_interval_joins_those_of_both_sets() -> None:
    """Changes ±1 about 3 and about 1, twenty clusters each: each t interval reaches t₁₉ · √(20/19) / √20 = t₁₉ / √19.

    Both are symmetric, so nothing is added for skewness, and the gap of 2 reaches √2 times as far.
    """
    test = gap_of([2.0, 4.0] * 10, [0.0, 2.0] * 10)
    reach = math.sqrt(2) * stats.t.ppf(0.995, 19) / math.sqrt(19)

    assert test.gap.value == pytest.approx(2.0)
    assert test.gap.interval.low == pytest.approx(2.0 - reach)
    assert test.gap.interval.high == pytest.approx(2.0 + reach)
    assert test.is_significant


def test_the_p_value_is_the_level_at_which_the_interval_meets_the_expected_gap() -> None:
    """2 = √2 · t₁₉ / √19 at t₁₉ = √38; the p-value is twice the tail above."""
    test = gap_of([2.0, 4.0] * 10, [0.0, 2.0] * 10)

    assert test.p_value == pytest.approx(2 * stats.t.sf(math.sqrt(38), 19), rel=1e-3)


def test_a_gap_that_harmless_adapters_show_too_is_none() -> None:
    test = gap_of([2.0, 4.0] * 10, [0.0, 2.0] * 10, expected_gap=1.9)

    assert not test.is_significant
    assert test.p_value > 0.5


def test_a_gap_within_the_tolerance_is_none() -> None:
    public, twin = [2.99, 3.01] * 10, [2.95, 2.97] * 10

    assert not gap_of(public, twin, tolerance=0.05).is_significant
    assert gap_of(public, twin, tolerance=0.01).is_significant


def test_a_twin_that_looks_better_is_no_gap() -> None:
    assert not gap_of([0.0, 2.0] * 10, [2.0, 4.0] * 10).is_significant


def test_where_less_is_better_the_public_prompts_look_better_with_less() -> None:
    def rate(found: Sequence[Pair], confidence: float) -> Measurement:
        return paired_share(RATE, found, confidence)

    clean, toxic = pairs(RATE, [0.0] * 100), pairs(RATE, [1.0] * 60 + [0.0] * 40)
    settings = Twin(prompts=DIGEST)
    (better, worse) = (gap_test(a, b, rate, settings=settings) for a, b in ((clean, toxic), (toxic, clean)))

    assert better is not None
    assert better.gap.value == pytest.approx(0.6)
    assert better.is_significant
    assert worse is not None
    assert not worse.is_significant


def test_without_a_figure_there_is_no_test() -> None:
    assert gap_test(pairs(MARGIN, [1.0]), pairs(MARGIN, [1.0]), margin, settings=Twin(prompts=DIGEST)) is None

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import pytest

from evaluator.samples import Pair, Sample
from evaluator.statistics.worst_case import worst_case
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.errors import EvaluationError

CONFIDENCE = 0.9
Figures = Callable[[float, float], Estimate | None]


def parts(values: Mapping[str, float]) -> dict[str, list[Pair]]:
    """One pair a part, whose score is the part's value."""
    samples = {
        name: Sample(prompt_id=name, cluster=name, prompt="", metric="toxicity.rate", score=value)
        for name, value in values.items()
    }
    return {name: [Pair(sample, sample)] for name, sample in samples.items()}


def measuring(figures: Figures, *, higher_is_better: bool = True) -> Callable[[Sequence[Pair], float], Measurement]:
    def measure(pairs: Sequence[Pair], confidence: float) -> Measurement:
        (pair,) = pairs
        assert pair.adapter.score is not None
        estimate = figures(pair.adapter.score, confidence)
        return Measurement(
            metric="m",
            unit="u",
            higher_is_better=higher_is_better,
            adapter=estimate,
            base=estimate,
            difference=estimate,
            n_requested=3,
            n_scored=2,
            n_errored=1,
            n_counted=2,
            n_clusters=2,
            method="an interval; by_group: parts",
        )

    return measure


def half_width(value: float, confidence: float) -> Estimate:
    """0.1 at 90 %, 0.2 at 95 %, where two parts share the error."""
    half = {0.9: 0.1, 0.95: 0.2}[round(confidence, 6)]
    return Estimate(value=value, interval=Interval(low=value - half, high=value + half))


def normal(value: float, confidence: float) -> Estimate:
    half = NormalDist().inv_cdf((1 + confidence) / 2)
    return Estimate(value=value, interval=Interval(low=value - half, high=value + half))


def test_the_lowest_part_speaks_for_all_where_higher_is_better() -> None:
    """Values 0.0 and −0.3: low is −0.3 − 0.1 uncorrected, high −0.3 + 0.2 corrected."""
    found = worst_case(parts({"a": 0.0, "b": -0.3}), measuring(half_width), CONFIDENCE)

    assert found.difference is not None
    assert found.difference.value == pytest.approx(-0.3)
    assert found.difference.interval.low == pytest.approx(-0.4)
    assert found.difference.interval.high == pytest.approx(-0.1)
    assert found.by_group == {"a": 0.0, "b": -0.3}


def test_the_highest_part_speaks_for_all_where_lower_is_better() -> None:
    """Values 0.0 and 0.3: high is 0.3 + 0.1 uncorrected, low 0.3 − 0.2 corrected."""
    found = worst_case(parts({"a": 0.0, "b": 0.3}), measuring(half_width, higher_is_better=False), CONFIDENCE)

    assert found.adapter is not None
    assert found.adapter.value == pytest.approx(0.3)
    assert found.adapter.interval.low == pytest.approx(0.1)
    assert found.adapter.interval.high == pytest.approx(0.4)


def test_errors_are_those_of_the_part_with_most_and_samples_those_of_the_part_with_fewest() -> None:
    """Scored, counted and errored of 10: 9, 9, 1 in the first part, 6, 3, 4 in the second; of all parts 25 % errors."""
    counts = {0.0: (9, 9, 1), 0.3: (6, 3, 4)}

    def measure(pairs: Sequence[Pair], confidence: float) -> Measurement:
        scored, counted, errored = counts[pairs[0].adapter.score or 0.0]
        update = {"n_requested": 10, "n_scored": scored, "n_counted": counted, "n_errored": errored}
        return measuring(half_width)(pairs, confidence).model_copy(update=update)

    found = worst_case(parts({"a": 0.0, "b": 0.3}), measure, CONFIDENCE)

    assert (found.n_requested, found.n_scored, found.n_errored, found.n_counted) == (10, 6, 4, 3)
    assert found.n_clusters == 2


def test_a_part_without_a_figure_leaves_none() -> None:
    found = worst_case(
        parts({"a": 0.0, "b": 0.3}), measuring(lambda value, c: half_width(value, c) if value else None), CONFIDENCE
    )

    assert found.difference is None
    assert found.by_group == {"b": 0.3}


def with_fields(fields: Mapping[float, Mapping[str, object]]) -> Callable[[Sequence[Pair], float], Measurement]:
    """Measures as `half_width`, with other fields for the part of that value."""

    def measure(pairs: Sequence[Pair], confidence: float) -> Measurement:
        return measuring(half_width)(pairs, confidence).model_copy(update=dict(fields[pairs[0].adapter.score or 0.0]))

    return measure


def test_a_part_that_was_asked_fewer_samples_is_an_error() -> None:
    fields: dict[float, dict[str, object]] = {0.0: {"n_requested": 3}, 0.3: {"n_requested": 2, "n_errored": 0}}

    with pytest.raises(EvaluationError, match=r"^m: the parts were not asked as many samples each: 3 in a, 2 in b$"):
        worst_case(parts({"a": 0.0, "b": 0.3}), with_fields(fields), CONFIDENCE)


def test_every_count_is_that_of_the_worst_part() -> None:
    fields: dict[float, dict[str, object]] = {
        0.0: {"n_truncated": 1, "n_clusters": 5, "n_counted": 2, "p_value": 0.5},
        0.3: {"n_truncated": 3, "n_clusters": 4, "n_counted": None, "p_value": 0.5},
    }
    found = worst_case(parts({"a": 0.0, "b": 0.3}), with_fields(fields), CONFIDENCE)

    assert (found.n_truncated, found.n_clusters, found.n_counted, found.p_value) == (3, 4, None, None)
    assert found.base == found.adapter == found.difference
    assert found.method == (
        "worst of a, b, each figure by itself, Bonferroni where the worst is chosen; in each: an interval; "
        "by_group: paired change"
    )


def test_one_part_is_its_own_worst() -> None:
    found = worst_case(parts({"a": 0.3}), measuring(half_width), CONFIDENCE)

    assert found.difference == half_width(0.3, CONFIDENCE)
    assert found.base == half_width(0.3, CONFIDENCE)


@pytest.mark.parametrize("missing_at", [0.9, 0.95])
def test_figure_that_is_missing_at_one_confidence_is_none(missing_at: float) -> None:
    def figures(value: float, confidence: float) -> Estimate | None:
        return None if value and confidence == pytest.approx(missing_at) else half_width(value, confidence)

    assert worst_case(parts({"a": 0.0, "b": 0.3}), measuring(figures), CONFIDENCE).difference is None


def test_no_parts_is_an_error() -> None:
    with pytest.raises(EvaluationError, match=r"^there are no parts to find the worst of$"):
        worst_case({}, measuring(normal), CONFIDENCE)


@pytest.mark.parametrize("truth", [(0.0, 0.0, 0.0), (0.0, 0.5, 1.0), (0.0, 9.0, 9.0)], ids=["equal", "near", "apart"])
def test_the_interval_holds_for_the_worst_part(truth: tuple[float, ...]) -> None:
    """4,000 runs of three parts with standard error 1: at 90 % each side misses in at most 5 % of runs, 200.

    Three standard errors of that count are 3 √(4000 · 0.05 · 0.95) = 41.
    """
    generator = random.Random(1)
    above = below = 0
    for _ in range(4000):
        seen = {str(index): generator.gauss(value, 1) for index, value in enumerate(truth)}
        interval = worst_case(parts(seen), measuring(normal), CONFIDENCE).difference
        assert interval is not None
        above += interval.interval.low > min(truth)
        below += interval.interval.high < min(truth)

    assert above <= 241
    assert below <= 241

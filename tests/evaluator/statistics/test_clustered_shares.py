from __future__ import annotations

import math
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.statistics.clustered_shares import Answers, clustered_share, clustered_share_difference
from evaluator.statistics.intervals import clopper_pearson, wilson_share
from policies.contract.evaluation import Estimate
from policies.errors import EvaluationError


class Sampled(NamedTuple):
    answers: Answers
    clusters: list[str]


def sampled(*questions: tuple[int, int], of: int) -> Sampled:
    """Answers to questions, `of` each: so many hits among so many counted ones."""
    hits = [float(number < n_hits) for n_hits, _ in questions for number in range(of)]
    counted = [float(number < n_counted) for _, n_counted in questions for number in range(of)]
    clusters = [f"question {index}" for index in range(len(questions)) for _ in range(of)]
    return Sampled(Answers(hits, counted), clusters)


def share(*questions: tuple[int, int], of: int, confidence: float = 0.95) -> Estimate:
    answers, clusters = sampled(*questions, of=of)
    return clustered_share(answers, clusters=clusters, confidence=confidence)


def difference(adapter: Sampled, base: Sampled) -> Estimate:
    return clustered_share_difference(adapter.answers, base.answers, clusters=adapter.clusters, confidence=0.95)


def test_no_hit_in_8_questions_of_20_answers_is_worth_33_independent_answers() -> None:
    """160 / (1 + 19 · 0.2) = 33.33, and (1 − p)^33.33 = 0.025 at p = 0.1048; 160 independent ones end at 0.0228."""
    estimate = share(*[(0, 20)] * 8, of=20)

    assert estimate.value == estimate.interval.low == 0
    assert estimate.interval.high == pytest.approx(1 - 0.025 ** (4.8 / 160), abs=1e-9)


def test_hits_only_mirror_no_hits() -> None:
    none, all_hits = share(*[(0, 20)] * 8, of=20), share(*[(20, 20)] * 8, of=20)

    assert all_hits.interval.high == 1
    assert all_hits.interval.low == pytest.approx(1 - none.interval.high, abs=1e-9)


def test_hits_in_one_of_4_questions_count_by_their_design_effect() -> None:
    """4 hits of 40: residuals 3, −1, −1, −1; D = (4/3 · 12) / (40 · 0.1 · 0.9) = 4.444, t(3) = 3.18245, z = 1.95996;
    n* = 40 / 4.444 · (1.95996 / 3.18245)² = 3.4137, less than 40 / (1 + 9 · 0.2) = 14.29."""
    estimate = share((4, 10), (0, 10), (0, 10), (0, 10), of=10)

    expected = clopper_pearson(0.1, 3.4137, 0.95)
    assert estimate.value == 0.1
    assert estimate.interval.low == pytest.approx(expected.low, abs=1e-4)
    assert estimate.interval.high == pytest.approx(expected.high, abs=1e-4)


@pytest.mark.parametrize(("hits", "n"), [(4, 8), (1, 4)])
def test_one_answer_to_each_question_costs_what_the_t_quantile_costs(hits: int, n: int) -> None:
    """Residuals 1 − p and −p, squares n p (1 − p) in all: D = n / (n − 1), n* = (n − 1) (z / t)², t with n − 1 d. f."""
    t = {8: 2.364624, 4: 3.182446}[n]
    estimate = share(*[(1, 1)] * hits, *[(0, 1)] * (n - hits), of=1)

    expected = clopper_pearson(hits / n, (n - 1) * (1.959964 / t) ** 2, 0.95)
    assert (estimate.interval.low, estimate.interval.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_answers_that_do_not_count_are_not_in_the_denominator() -> None:
    """2 of 4 in place of 2 of 20; what does not count changes nothing."""
    estimate = share((1, 2), (1, 2), of=10)

    assert estimate.value == 0.5
    assert estimate == share((1, 2), (1, 2), of=2)


def test_questions_without_counted_answers_are_no_questions() -> None:
    assert share((1, 5), (0, 5), (0, 0), (0, 0), of=5) == share((1, 5), (0, 5), of=5)


def test_clustered_interval_is_wider_than_that_of_independent_answers() -> None:
    """The published hits, 3 of 14, 4 of 16 and 2 of 10 (the other five questions none), 9 of 77 in all."""
    counted = [(3, 14), (4, 16), (2, 10), (0, 8), (0, 9), (0, 10), (0, 2), (0, 8)]
    estimate = share(*counted, of=20)
    independent = wilson_share([True] * 9 + [False] * 68, 0.95)

    assert estimate.value == independent.value
    assert estimate.interval.low < independent.interval.low
    assert estimate.interval.high > independent.interval.high


def test_difference_to_a_base_without_hits_ends_where_the_share_does() -> None:
    """The base's interval starts at its share, 0, so that only the adapter's upper reach is left: √(x² + 0)."""
    adapter, base = sampled(*[(2, 10), (1, 10)] * 4, of=10), sampled(*[(0, 10)] * 8, of=10)
    estimate = difference(adapter, base)
    alone = clustered_share(adapter.answers, clusters=adapter.clusters, confidence=0.95)

    assert estimate.value == alone.value
    assert estimate.interval.high == pytest.approx(alone.interval.high, abs=1e-12)
    assert estimate.interval.low < alone.interval.low


def test_difference_of_shares_with_denominators_of_their_own() -> None:
    """2 of 4 coherent answers against 2 of 20."""
    estimate = difference(sampled((1, 2), (1, 2), of=10), sampled((1, 10), (1, 10), of=10))

    assert estimate.value == pytest.approx(0.5 - 0.1)


def test_hits_on_the_same_questions_narrow_the_difference_and_on_others_widen_it() -> None:
    """Correlations 1, which counts ½, and −1: reach √(x² + y² − xy) and x + y of the same shares."""
    high_low, low_high = sampled(*[(8, 10), (2, 10)] * 6, of=10), sampled(*[(2, 10), (8, 10)] * 6, of=10)
    one = clustered_share(high_low.answers, clusters=high_low.clusters, confidence=0.95).interval
    x, y = one.high - 0.5, 0.5 - one.low

    assert difference(high_low, high_low).interval.high == pytest.approx(math.sqrt(x * x + y * y - x * y))
    assert difference(high_low, low_high).interval.high == pytest.approx(x + y)


def test_correlation_of_few_answers_counts_as_that_of_many() -> None:
    """Residuals of half a hit: 1 of 2 and 0 of 2 with a share of 1/4. Correlation 1 again, which counts ½."""
    few = sampled((1, 2), (0, 2), of=2)
    estimate = difference(few, few)
    one = clustered_share(few.answers, clusters=few.clusters, confidence=0.95)
    x, y = one.interval.high - one.value, one.value - one.interval.low

    assert estimate.interval.high == pytest.approx(math.sqrt(x * x + y * y - x * y))


def test_side_that_never_varies_correlates_with_nothing() -> None:
    """The base has no hits: below, the adapter's reach and the base's join to √(x² + y²)."""
    adapter, base = sampled(*[(2, 10), (1, 10)] * 4, of=10), sampled(*[(0, 10)] * 8, of=10)
    a, b = (clustered_share(each.answers, clusters=each.clusters, confidence=0.95) for each in (adapter, base))
    x, y = a.value - a.interval.low, b.interval.high - b.value

    assert difference(adapter, base).interval.low == pytest.approx(a.value - math.sqrt(x * x + y * y), abs=1e-12)


@pytest.mark.parametrize(("confidence", "end"), [(0.95, "high"), (0.99, "low")])
def test_difference_never_exceeds_one_by_rounding(confidence: float, end: str) -> None:
    """Three answers to each of two questions, hit by either the adapter or the base: the reach is all there is.

    In floating point these end at 1.0000000000000002 and −1.0000000000000002.
    """
    few, many = Answers([0, 0, 0, 1, 0, 1], [1] * 6), Answers([1, 1, 1, 0, 1, 0], [1] * 6)
    adapter, base = (few, many) if end == "high" else (many, few)
    found = clustered_share_difference(adapter, base, clusters=[*"aaabbb"], confidence=confidence)

    assert getattr(found.interval, end) == (1 if end == "high" else -1)


def test_nothing_in_common_is_never_a_certain_difference() -> None:
    """No hits on either side: 0, but not exactly 0."""
    nothing = sampled(*[(0, 20)] * 8, of=20)
    interval = difference(nothing, nothing).interval

    assert interval.low == pytest.approx(-interval.high)
    assert interval.high == pytest.approx(1 - 0.025 ** (4.8 / 160), abs=1e-9)


@pytest.mark.parametrize(
    ("hits", "counted", "clusters", "message"),
    [
        ([], [], [], "an interval needs counted answers to at least 2 questions"),
        ([1.0, 0.0], [1.0, 1.0], ["a", "a"], "an interval needs counted answers to at least 2 questions"),
        ([0.0, 0.0], [0.0, 0.0], ["a", "b"], "an interval needs counted answers to at least 2 questions"),
        ([1.0, 0.0], [1.0, 0.0], ["a", "b"], "an interval needs counted answers to at least 2 questions"),
        ([math.nan, 0.0], [1.0, 1.0], ["a", "b"], "hits and counted answers must be 0 or 1, and each hit counted"),
        ([1.0, 0.0], [math.nan, 1.0], ["a", "b"], "hits and counted answers must be 0 or 1, and each hit counted"),
        ([0.5, 0.0], [1.0, 1.0], ["a", "b"], "hits and counted answers must be 0 or 1, and each hit counted"),
        ([1.0, 0.0], [0.0, 1.0], ["a", "b"], "hits and counted answers must be 0 or 1, and each hit counted"),
        ([1.0], [1.0, 1.0], ["a", "b"], "hits, counted answers and clusters differ in number"),
        ([1.0, 0.0], [1.0, 1.0], ["a"], "hits, counted answers and clusters differ in number"),
    ],
)
def test_answers_without_a_figure_are_refused(
    hits: list[float], counted: list[float], clusters: list[str], message: str
) -> None:
    sound = Answers([0.0] * len(clusters), [1.0] * len(clusters))
    with pytest.raises(EvaluationError, match=f"^{message}$"):
        clustered_share(Answers(hits, counted), clusters=clusters, confidence=0.95)
    if len(set(clusters)) > 1:
        with pytest.raises(EvaluationError, match=message):
            clustered_share_difference(sound, Answers(hits, counted), clusters=clusters, confidence=0.95)


QUESTION = st.integers(1, 12).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
PAIRED = st.lists(st.tuples(QUESTION, QUESTION), min_size=2, max_size=12)


@given(PAIRED, st.floats(0.8, 0.9999))
def test_difference_contains_its_value_mirrors_and_has_a_width(
    pairs: list[tuple[tuple[int, int], tuple[int, int]]], confidence: float
) -> None:
    a, b = sampled(*(pair[0] for pair in pairs), of=12), sampled(*(pair[1] for pair in pairs), of=12)
    there = clustered_share_difference(a.answers, b.answers, clusters=a.clusters, confidence=confidence)
    back = clustered_share_difference(b.answers, a.answers, clusters=a.clusters, confidence=confidence)

    assert -1 <= there.interval.low <= there.value <= there.interval.high <= 1
    assert there.interval.low < there.interval.high
    assert there.interval.low == pytest.approx(-back.interval.high, abs=1e-9)


@given(st.lists(QUESTION, min_size=2, max_size=12), st.floats(0.8, 0.999))
def test_share_lies_in_its_interval_which_grows_with_confidence(
    questions: list[tuple[int, int]], confidence: float
) -> None:
    narrow = share(*questions, of=12, confidence=confidence)
    wide = share(*questions, of=12, confidence=(1 + confidence) / 2)

    assert 0 <= wide.interval.low <= narrow.interval.low <= narrow.value
    assert narrow.value <= narrow.interval.high <= wide.interval.high <= 1
    assert narrow.interval.low < narrow.interval.high

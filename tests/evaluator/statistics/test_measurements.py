"""What a measurement says besides its intervals: counts, groups, units, and when there is no figure."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evaluator.samples import Pair, Sample
from evaluator.statistics.clustered_shares import Answers, clustered_share, clustered_share_difference
from evaluator.statistics.intervals import (
    clopper_pearson_share,
    cluster_ratio,
    mcnemar_exact,
    paired_share_difference,
)
from evaluator.statistics.measurements import paired_mean, paired_rate, paired_share
from evaluator.statistics.stratified_shares import mean_of_strata, stratified_paired_share
from policies.contract.evaluation import Measurement
from policies.errors import EvaluationError

SHARE, MEAN, RATE = "harmful_compliance.rate", "emergent_misalignment_preference.margin", "emergent_misalignment.rate"
Scored = tuple[float | None, float]
"""Score and weight."""


def pair(cluster: str, adapter: Scored, base: Scored, *, number: int = 0, truncated: bool = False) -> Pair:
    return Pair(
        *(
            Sample(
                prompt_id=f"{cluster} {number}",
                cluster=cluster,
                prompt="p",
                metric="s",
                score=score,
                weight=weight,
                truncated=truncated,
            )
            for score, weight in (adapter, base)
        )
    )


YES, NO, NONE, UNCOUNTED = (1.0, 1.0), (0.0, 1.0), (None, 1.0), (1.0, 0.0)
SHARES = [
    pair("a", YES, NO, truncated=True),
    pair("a", YES, NO),
    pair("a", NO, NO),
    pair("b", NO, YES),
    pair("b", YES, YES),
    pair("c", YES, NONE),
]
"""Of 5 scored prompts the adapter is hit on 3, the base on 2; 2 are the adapter's only, 1 the base's only."""


def test_share_has_the_figures_of_its_scored_prompts() -> None:
    adapter, base = [True, True, False, False, True], [False, False, False, True, True]
    found = paired_share(SHARE, SHARES, 0.9)

    assert found.adapter == clopper_pearson_share(adapter, 0.9)
    assert found.base == clopper_pearson_share(base, 0.9)
    assert found.difference == paired_share_difference(adapter, base, 0.9)
    assert found.p_value == mcnemar_exact(adapter, base) == 1.0


def test_share_counts_prompts_and_groups() -> None:
    found = paired_share(SHARE, SHARES, 0.9)

    assert (found.metric, found.unit, found.higher_is_better) == (SHARE, "share of requests", False)
    assert (found.n_requested, found.n_scored, found.n_errored, found.n_truncated) == (6, 5, 1, 1)
    assert (found.n_clusters, found.n_counted) == (5, None)
    assert found.by_group == {"a": 2 / 3, "b": 0.5}
    assert found.method == (
        "Clopper–Pearson intervals; difference: Tango's or MOVER, the outer ends; by_group: adapter"
    )


def test_score_other_than_one_is_no_hit() -> None:
    found = paired_share(SHARE, [pair("a", (0.5, 1.0), NO), pair("a", YES, (0.5, 1.0))], 0.9)

    assert (found.adapter, found.base) == (
        clopper_pearson_share([False, True], 0.9),
        clopper_pearson_share([False] * 2, 0.9),
    )


@pytest.mark.parametrize("measure", [paired_share, paired_mean, paired_rate])
def test_nothing_scored_is_no_figure(measure: Callable[..., Measurement]) -> None:
    found = measure(RATE if measure is paired_rate else SHARE, [pair("a", NONE, YES), pair("b", YES, NONE)], 0.9)

    assert (found.adapter, found.base, found.difference, found.p_value) == (None, None, None, None)
    assert (found.n_requested, found.n_scored, found.n_errored, found.n_clusters) == (2, 0, 2, 0)
    assert found.by_group == {}


MEANS = [
    pair("a", (2.0, 1.0), (1.0, 1.0)),
    pair("a", (4.0, 3.0), (2.0, 3.0)),
    pair("b", (1.0, 2.0), (4.0, 2.0), truncated=True),
    pair("c", (9.0, 1.0), NONE),
]
"""Σ score / Σ weight: the adapter's 7/6, the base's 7/6; changes of 3/4 in a and −3/2 in b."""


def test_mean_has_the_figures_of_its_clusters() -> None:
    clusters, weights = ["a", "a", "b"], [1.0, 3.0, 2.0]
    found = paired_mean(MEAN, MEANS, 0.9)

    assert found.adapter == cluster_ratio([2.0, 4.0, 1.0], weights, clusters, confidence=0.9)
    assert found.base == cluster_ratio([1.0, 2.0, 4.0], weights, clusters, confidence=0.9)
    assert found.difference == cluster_ratio([1.0, 2.0, -3.0], weights, clusters, confidence=0.9)
    assert found.by_group == {"a": 3 / 4, "b": -3 / 2}


def test_mean_counts_prompts_and_clusters() -> None:
    found = paired_mean(MEAN, MEANS, 0.9)

    assert (found.metric, found.unit, found.higher_is_better) == (MEAN, "nats/token", True)
    assert (found.n_requested, found.n_scored, found.n_errored, found.n_truncated) == (4, 3, 1, 1)
    assert (found.n_clusters, found.n_counted, found.p_value) == (2, None, None)
    assert found.method == "cluster-robust t intervals, widened for skewness (Hall); by_group: paired change"


def test_mean_of_one_cluster_is_no_figure() -> None:
    found = paired_mean(MEAN, MEANS[:2], 0.9)

    assert (found.adapter, found.base, found.difference, found.n_clusters) == (None, None, None, 1)
    assert found.by_group == {"a": 3 / 4}


def test_score_of_zero_is_a_score() -> None:
    pairs = [pair("a", (0.0, 1.0), (2.0, 1.0)), pair("b", (3.0, 1.0), (0.0, 1.0))]
    found = paired_mean(MEAN, pairs, 0.9)

    assert [each and each.value for each in (found.adapter, found.base, found.difference)] == [1.5, 1.0, 0.5]


def test_clusters_of_one_prompt_each_are_no_groups() -> None:
    found = paired_mean(MEAN, [MEANS[0], MEANS[2]], 0.9)

    assert found.n_clusters == 2
    assert found.by_group == {}


RATES = [
    pair("a", YES, NO),
    pair("a", UNCOUNTED, NO),
    pair("b", NO, YES),
    pair("b", NO, UNCOUNTED, truncated=True),
    pair("c", UNCOUNTED, NO),
    pair("d", NO, NONE),
]
"""The adapter has 1 hit among 3 counted answers to 2 questions, the base 1 among 4 to 3."""


def test_rate_has_the_figures_of_counted_answers() -> None:
    clusters = ["a", "a", "b", "b", "c"]
    adapter = Answers(hits=[1.0, 0.0, 0.0, 0.0, 0.0], counted=[1.0, 0.0, 1.0, 1.0, 0.0])
    base = Answers(hits=[0.0, 0.0, 1.0, 0.0, 0.0], counted=[1.0, 1.0, 1.0, 0.0, 1.0])
    found = paired_rate(RATE, RATES, 0.9)

    assert found.adapter == clustered_share(adapter, clusters=clusters, confidence=0.9)
    assert found.base == clustered_share(base, clusters=clusters, confidence=0.9)
    assert found.difference == clustered_share_difference(adapter, base, clusters=clusters, confidence=0.9)


def test_rate_counts_what_is_in_its_denominator() -> None:
    found = paired_rate(RATE, RATES, 0.9)

    assert (found.metric, found.unit, found.higher_is_better) == (RATE, "share of coherent answers", False)
    assert (found.n_requested, found.n_scored, found.n_errored, found.n_truncated) == (6, 5, 1, 1)
    assert (found.n_clusters, found.n_counted, found.p_value) == (2, 3, None)
    assert found.by_group == {"a": 1.0, "b": 0.0}
    assert found.method == (
        "share of coherent answers; Korn–Graubard intervals clustered by question; difference: MOVER; by_group: adapter"
    )


def test_rate_is_grouped_as_the_caller_says() -> None:
    assert paired_rate(RATE, RATES, 0.9, group=lambda pair: "all").by_group == {"all": 1 / 3}


def test_rate_of_two_questions_on_both_sides_is_a_figure() -> None:
    found = paired_rate(RATE, [pair("a", YES, NO), pair("b", NO, YES)], 0.9)

    assert [each and each.value for each in (found.adapter, found.base, found.difference)] == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    "pairs",
    [
        [pair("a", YES, YES), pair("b", UNCOUNTED, YES)],
        [pair("a", YES, YES), pair("b", YES, UNCOUNTED)],
        [pair("a", YES, YES), pair("b", NONE, YES)],
    ],
    ids=["adapter", "base", "scored"],
)
def test_rate_of_one_question_on_either_side_is_no_figure(pairs: list[Pair]) -> None:
    found = paired_rate(RATE, pairs, 0.9)

    assert (found.adapter, found.base, found.difference) == (None, None, None)


def test_lost_answer_counts_in_the_bounds_whatever_its_weight() -> None:
    """An answer without a score has no weight of its own yet: as a hit it is in the denominator."""
    scored = [pair(name, NO, NO) for name in "abcdefgh"]
    lost = pair("i", (None, 0.0), NO)
    clusters = [*"abcdefghi"]
    worst = Answers(hits=[*[0.0] * 8, 1.0], counted=[1.0] * 9)
    best = clustered_share(Answers([0.0] * 8, [1.0] * 8), clusters=clusters[:8], confidence=0.9)
    found = paired_rate(RATE, [lost, *scored], 0.9)

    assert found.adapter is not None
    assert found.adapter.value == 0
    assert found.adapter.interval.high == clustered_share(worst, clusters=clusters, confidence=0.9).interval.high
    assert found.adapter.interval.high > best.interval.high
    assert found.n_counted == 8


def test_lost_answers_widen_the_base_by_nothing() -> None:
    scored, lost = [pair(name, NO, YES) for name in "abcdefgh"], [pair("i", NONE, YES)]
    for measure, metric in ((paired_share, SHARE), (paired_rate, RATE)):
        assert measure(metric, [*scored, *lost], 0.9).base == measure(metric, scored, 0.9).base


STRATA = [
    *(pair("a", YES, NO, number=n) for n in range(3)),
    *(pair("a", NO, NO, number=n) for n in range(3, 6)),
    *(pair("b", YES, YES, number=n) for n in range(4)),
]


def test_mean_over_tasks_counts_each_alike() -> None:
    """Adapter (1/2 + 1) / 2, base (0 + 1) / 2, change (1/2 + 0) / 2."""
    found = stratified_paired_share("harness.accuracy", STRATA, 0.9)
    parts = [paired_share("harness.accuracy", part, 0.9) for part in (STRATA[:6], STRATA[6:])]

    assert found.adapter == mean_of_strata([part.adapter for part in parts if part.adapter])
    assert found.base == mean_of_strata([part.base for part in parts if part.base])
    assert found.difference == mean_of_strata([part.difference for part in parts if part.difference])
    assert [each and each.value for each in (found.adapter, found.base, found.difference)] == [0.75, 0.5, 0.25]


def test_mean_over_tasks_keeps_the_counts_of_all() -> None:
    found, pooled = (measure("harness.accuracy", STRATA, 0.9) for measure in (stratified_paired_share, paired_share))

    assert (found.n_requested, found.n_scored, found.p_value) == (10, 10, pooled.p_value)
    assert found.by_group == {"a": 0.5, "b": 1.0}
    assert found.method == f"mean over tasks, by MOVER from intervals of each: {pooled.method}"


def test_task_without_a_score_of_both_has_no_mean() -> None:
    message = "nothing of b was scored for both models, so there is no mean over all tasks"
    with pytest.raises(EvaluationError, match=message):
        stratified_paired_share("harness.accuracy", [*STRATA[:6], pair("b", YES, NONE)], 0.9)

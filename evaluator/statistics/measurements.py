"""Builds measurements from paired samples: shares of yes/no scores, and clustered means of real scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from evaluator.samples import Pair, Sample
from evaluator.statistics.clustered_shares import Answers, clustered_share, clustered_share_difference
from evaluator.statistics.intervals import clopper_pearson_share, cluster_ratio, mcnemar_exact, paired_share_difference
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.contract.suite import METRICS

Figures = tuple[Estimate, Estimate, Estimate]
"""Of the adapter, of the base, and their difference."""


def paired_share(metric: str, pairs: Sequence[Pair], confidence: float) -> Measurement:
    """A share of prompts, e.g. toxic ones; each prompt is one independent sample, scored 0 or 1.

    An answer of the adapter that can't be scored where the base's can is not missing by chance: to hide from the scorer
    may be what fine-tuning taught. So the intervals reach as far as if all of these were hits, and as if none was
    (worst-case bounds: Manski 1989, Journal of Human Resources 24:343). Values are those of scored pairs.
    """
    scored, lost = [pair for pair in pairs if pair.is_scored], _lost(pairs)
    adapter, base = [p.adapter.score == 1 for p in scored], [p.base.score == 1 for p in scored]
    figures, p_value = None, None
    if scored:
        p_value = mcnemar_exact(adapter, base)
        figures = _share_figures(adapter, base, confidence)
    if figures and lost:
        all_base = base + [pair.base.score == 1 for pair in lost]
        bounds = [_share_figures(adapter + [hit] * len(lost), all_base, confidence) for hit in (False, True)]
        figures = _reaching(figures, bounds)
    groups: dict[str, list[float]] = defaultdict(list)
    for pair, hit in zip(scored, adapter, strict=True):
        groups[pair.adapter.cluster].append(float(hit))
    by_group = {name: sum(values) / len(values) for name, values in groups.items()}
    method = "Clopper–Pearson intervals; difference: Tango's or MOVER, the outer ends; by_group: adapter"
    measurement = _measurement(metric, pairs, figures, method=method, by_group=by_group)
    return measurement.model_copy(update={"n_clusters": len(scored), "p_value": p_value})


def _lost(pairs: Sequence[Pair]) -> list[Pair]:
    """Those that can't be scored because of the adapter alone."""
    return [pair for pair in pairs if pair.adapter.score is None and pair.base.score is not None]


def _share_figures(adapter: list[bool], base: list[bool], confidence: float) -> Figures:
    return (
        clopper_pearson_share(adapter, confidence),
        clopper_pearson_share(base, confidence),
        paired_share_difference(adapter, base, confidence),
    )


def _reaching(figures: Figures, bounds: Sequence[Figures]) -> Figures:
    """The figures; intervals of adapter and difference hold those of the bounds as well."""
    adapter, base, difference = figures
    return _widened(adapter, [b[0] for b in bounds]), base, _widened(difference, [b[2] for b in bounds])


def _widened(estimate: Estimate, others: Sequence[Estimate]) -> Estimate:
    intervals = [each.interval for each in (estimate, *others)]
    reach = Interval(low=min(each.low for each in intervals), high=max(each.high for each in intervals))
    return Estimate(value=estimate.value, interval=reach)


def paired_mean(metric: str, pairs: Sequence[Pair], confidence: float) -> Measurement:
    """Σ score / Σ weight over clustered prompts, and its paired change; None where there are fewer than 2 clusters."""
    scored = [pair for pair in pairs if pair.is_scored]
    clusters = [pair.adapter.cluster for pair in scored]
    weights = [pair.adapter.weight for pair in scored]
    adapter, base = [float(p.adapter.score or 0) for p in scored], [float(p.base.score or 0) for p in scored]
    change = [a - b for a, b in zip(adapter, base, strict=True)]
    figures = None
    if len(set(clusters)) > 1:
        a, b, d = (cluster_ratio(x, weights, clusters, confidence=confidence) for x in (adapter, base, change))
        figures = (a, b, d)
    sums: dict[str, tuple[float, float]] = {}
    for name, value, weight in zip(clusters, change, weights, strict=True):
        top, bottom = sums.get(name, (0.0, 0.0))
        sums[name] = (top + value, bottom + weight)
    by_group = {name: top / bottom for name, (top, bottom) in sums.items()} if len(sums) < len(scored) else {}
    method = "cluster-robust t intervals, widened for skewness (Hall); by_group: paired change"
    return _measurement(metric, pairs, figures, method=method, by_group=by_group)


def paired_rate(
    metric: str,
    pairs: Sequence[Pair],
    confidence: float,
    *,
    group: Callable[[Pair], str] = lambda pair: pair.adapter.cluster,
) -> Measurement:
    """A share of those answers that count, i.e. have a weight; adapter and base have denominators of their own.

    Without counted answers to at least 2 questions on both sides there is no figure. `group` names the groups of
    `by_group`. What the judges can't score of the adapter's answers alone widens the intervals as in `paired_share`.
    """
    scored, lost = [pair for pair in pairs if pair.is_scored], _lost(pairs)
    clusters = [pair.adapter.cluster for pair in scored]
    adapter, base = _answers([pair.adapter for pair in scored]), _answers([pair.base for pair in scored])
    figures = None
    if min(_counted_clusters(answers, clusters) for answers in (adapter, base)) > 1:
        figures = _rate_figures(adapter, base, clusters=clusters, confidence=confidence)
    if figures and lost:
        all_clusters = clusters + [pair.adapter.cluster for pair in lost]
        all_base, counted = _answers([pair.base for pair in (*scored, *lost)]), [*adapter.counted, *[1.0] * len(lost)]
        extremes = [Answers([*adapter.hits, *[hit] * len(lost)], counted) for hit in (0.0, 1.0)]
        bounds = [_rate_figures(each, all_base, clusters=all_clusters, confidence=confidence) for each in extremes]
        figures = _reaching(figures, bounds)
    groups: dict[str, list[float]] = defaultdict(list)
    for pair, hit, counts in zip(scored, *adapter, strict=True):
        if counts:
            groups[group(pair)].append(hit)
    by_group = {name: sum(hits) / len(hits) for name, hits in groups.items()}
    unit = METRICS[metric.partition(".")[0]][metric][0]
    method = f"{unit}; Korn–Graubard intervals clustered by question; difference: MOVER; by_group: adapter"
    measurement = _measurement(metric, pairs, figures, method=method, by_group=by_group)
    return measurement.model_copy(
        update={"n_clusters": _counted_clusters(adapter, clusters), "n_counted": int(sum(adapter.counted))}
    )


def _rate_figures(adapter: Answers, base: Answers, *, clusters: Sequence[str], confidence: float) -> Figures:
    return (
        clustered_share(adapter, clusters=clusters, confidence=confidence),
        clustered_share(base, clusters=clusters, confidence=confidence),
        clustered_share_difference(adapter, base, clusters=clusters, confidence=confidence),
    )


def _answers(samples: Sequence[Sample]) -> Answers:
    counted = [float(sample.weight > 0) for sample in samples]
    return Answers(
        [counts * float(sample.score == 1) for sample, counts in zip(samples, counted, strict=True)], counted
    )


def _counted_clusters(answers: Answers, clusters: Sequence[str]) -> int:
    return len({cluster for cluster, counts in zip(clusters, answers.counted, strict=True) if counts})


def _measurement(
    metric: str, pairs: Sequence[Pair], figures: Figures | None, *, method: str, by_group: dict[str, float]
) -> Measurement:
    unit, higher_is_better = METRICS[metric.partition(".")[0]][metric]
    adapter, base, difference = figures or (None, None, None)
    scored = [pair for pair in pairs if pair.is_scored]
    return Measurement(
        metric=metric,
        unit=unit,
        higher_is_better=higher_is_better,
        adapter=adapter,
        base=base,
        difference=difference,
        n_requested=len(pairs),
        n_scored=len(scored),
        n_errored=len(pairs) - len(scored),
        n_truncated=sum(pair.adapter.truncated for pair in pairs),
        n_clusters=len({pair.adapter.cluster for pair in scored}),
        method=method,
        by_group=by_group,
    )

"""Builds measurements from paired samples: shares of yes/no scores, and clustered means of real scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from evaluator.samples import Pair, Sample
from evaluator.statistics.clustered_shares import Answers, clustered_share, clustered_share_difference
from evaluator.statistics.intervals import clopper_pearson_share, cluster_ratio, mcnemar_exact, paired_share_difference
from policies.contract.evaluation import Estimate, Interval, Measurement
from policies.contract.metrics import metric_named

Figures = tuple[Estimate, Estimate, Estimate]
"""Of the adapter, of the base, and their difference."""


class _Found(NamedTuple):
    """What one kind of figure puts into a measurement."""

    figures: Figures | None
    method: str
    by_group: dict[str, float]
    n_clusters: int
    n_counted: int | None = None
    p_value: float | None = None


def paired_share(metric: str, pairs: Sequence[Pair], confidence: float) -> Measurement:
    """A share of prompts, e.g. toxic ones; each prompt is one independent sample, scored 0 or 1.

    An answer of the adapter that can't be scored where the base's can is not missing by chance: to hide from the scorer
    may be what fine-tuning taught. So the intervals reach as far as if all of these were hits, and as if none was
    (worst-case bounds: Manski 1989, Journal of Human Resources 24:343). Values are those of scored pairs.
    """
    scored = _scored(pairs)
    figures, p_value = None, None
    if scored:
        p_value = mcnemar_exact(*_hits(scored))
        bounds = [_share_figures(extreme, confidence) for extreme in _extremes(pairs)]
        figures = _reaching(_share_figures(scored, confidence), bounds)
    by_group = _means((pair.adapter.cluster, pair.adapter.score == 1) for pair in scored)
    method = "Clopper–Pearson intervals; difference: Tango's or MOVER, the outer ends; by_group: adapter"
    return _measurement(metric, pairs, _Found(figures, method, by_group, n_clusters=len(scored), p_value=p_value))


def paired_mean(metric: str, pairs: Sequence[Pair], confidence: float) -> Measurement:
    """Σ score / Σ weight over clustered prompts, and its paired change; None where there are fewer than 2 clusters."""
    scored = _scored(pairs)
    clusters = [pair.adapter.cluster for pair in scored]
    weights = [pair.adapter.weight for pair in scored]
    adapter, base = [float(p.adapter.score or 0) for p in scored], [float(p.base.score or 0) for p in scored]
    change = [a - b for a, b in zip(adapter, base, strict=True)]
    figures, n_clusters = None, _n_clusters(scored)
    if n_clusters > 1:
        a, b, d = (cluster_ratio(x, weights, clusters, confidence=confidence) for x in (adapter, base, change))
        figures = (a, b, d)
    sums: dict[str, tuple[float, float]] = {}
    for name, value, weight in zip(clusters, change, weights, strict=True):
        top, bottom = sums.get(name, (0.0, 0.0))
        sums[name] = (top + value, bottom + weight)
    by_group = {name: top / bottom for name, (top, bottom) in sums.items()} if len(sums) < len(scored) else {}
    method = "cluster-robust t intervals, widened for skewness (Hall); by_group: paired change"
    return _measurement(metric, pairs, _Found(figures, method, by_group, n_clusters))


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
    scored = _scored(pairs)
    counted, of_base = ([pair for pair in scored if _counts(pair[side])] for side in (0, 1))
    figures = None
    if _n_clusters(counted) > 1 and _n_clusters(of_base) > 1:
        bounds = [_rate_figures(extreme, confidence) for extreme in _extremes(pairs)]
        figures = _reaching(_rate_figures(scored, confidence), bounds)
    by_group = _means((group(pair), pair.adapter.score == 1) for pair in counted)
    unit = metric_named(metric).unit
    method = f"{unit}; Korn–Graubard intervals clustered by question; difference: MOVER; by_group: adapter"
    found = _Found(figures, method, by_group, n_clusters=_n_clusters(counted), n_counted=len(counted))
    return _measurement(metric, pairs, found)


def _scored(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.is_scored]


def _extremes(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """The pairs as if none of the answers that can't be scored because of the adapter alone were a hit, and as if all.

    Empty where there is no such answer.
    """
    lost = [pair for pair in pairs if pair.adapter.score is None and pair.base.score is not None]
    return [[*_scored(pairs), *(_scored_as(hit, pair) for pair in lost)] for hit in (0.0, 1.0)] if lost else []


def _scored_as(score: float, pair: Pair) -> Pair:
    return pair._replace(adapter=pair.adapter.model_copy(update={"score": score, "weight": 1.0}))


def _reaching(figures: Figures, bounds: Sequence[Figures]) -> Figures:
    """The figures; intervals of adapter and difference hold those of the bounds as well."""
    adapter, base, difference = figures
    return _widened(adapter, [b[0] for b in bounds]), base, _widened(difference, [b[2] for b in bounds])


def _widened(estimate: Estimate, others: Sequence[Estimate]) -> Estimate:
    intervals = [each.interval for each in (estimate, *others)]
    reach = Interval(low=min(each.low for each in intervals), high=max(each.high for each in intervals))
    return Estimate(value=estimate.value, interval=reach)


def _share_figures(pairs: Sequence[Pair], confidence: float) -> Figures:
    adapter, base = _hits(pairs)
    return (
        clopper_pearson_share(adapter, confidence),
        clopper_pearson_share(base, confidence),
        paired_share_difference(adapter, base, confidence),
    )


def _hits(pairs: Sequence[Pair]) -> tuple[list[bool], list[bool]]:
    """Of adapter and base."""
    return [pair.adapter.score == 1 for pair in pairs], [pair.base.score == 1 for pair in pairs]


def _rate_figures(pairs: Sequence[Pair], confidence: float) -> Figures:
    clusters = [pair.adapter.cluster for pair in pairs]
    adapter, base = (_answers([pair[side] for pair in pairs]) for side in (0, 1))
    return (
        clustered_share(adapter, clusters=clusters, confidence=confidence),
        clustered_share(base, clusters=clusters, confidence=confidence),
        clustered_share_difference(adapter, base, clusters=clusters, confidence=confidence),
    )


def _answers(samples: Sequence[Sample]) -> Answers:
    return Answers(
        hits=[float(_counts(sample) and sample.score == 1) for sample in samples],
        counted=[float(_counts(sample)) for sample in samples],
    )


def _counts(sample: Sample) -> bool:
    return sample.weight > 0


def _n_clusters(pairs: Sequence[Pair]) -> int:
    return len({pair.adapter.cluster for pair in pairs})


def _means(named: Iterable[tuple[str, bool]]) -> dict[str, float]:
    """The share of hits under each name."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for name, is_hit in named:
        groups[name].append(is_hit)
    return {name: sum(hits) / len(hits) for name, hits in groups.items()}


def _measurement(metric: str, pairs: Sequence[Pair], found: _Found) -> Measurement:
    unit, higher_is_better = metric_named(metric)
    adapter, base, difference = found.figures or (None, None, None)
    n_scored = len(_scored(pairs))
    return Measurement(
        metric=metric,
        unit=unit,
        higher_is_better=higher_is_better,
        adapter=adapter,
        base=base,
        difference=difference,
        n_requested=len(pairs),
        n_scored=n_scored,
        n_errored=len(pairs) - n_scored,
        n_truncated=sum(pair.adapter.truncated for pair in pairs),
        n_counted=found.n_counted,
        n_clusters=found.n_clusters,
        p_value=found.p_value,
        method=found.method,
        by_group=found.by_group,
    )

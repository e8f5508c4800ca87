"""The figures of a reference adapter, judged as rules would judge them at each look of the suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from evaluator.gating.comparison import judged_figure
from evaluator.gating.failability import worst_change
from policies.contract.calibration import Bound, LookFigure
from policies.contract.evaluation import Measurement
from policies.contract.metrics import METRICS, metric_named
from policies.contract.suite import EvalSuite
from policies.documents.schema import ReleasePolicy
from trainer.qualification.records import WantedFigure


class Look(NamedTuple):
    """What a probe measured at a look."""

    measurements: Sequence[Measurement]
    confidence: float
    """Of their intervals."""


Looks = Mapping[str, Sequence[Look]]
"""Probe → its looks, in order."""


def wanted_figures(policy: ReleasePolicy) -> tuple[WantedFigure, ...]:
    """One for each bound of a rule, and the change against the base of every metric that no rule bounds."""
    found: dict[str, WantedFigure] = {}
    for rule in policy.spec.rules:
        wanted = WantedFigure(metric=rule.metric, bound=rule.bound)
        most = min(rule.max_error_rate, found.get(wanted.name, wanted).max_error_rate)
        found[wanted.name] = wanted.model_copy(update={"max_error_rate": most})
    bounded = {rule.metric for rule in policy.spec.rules}
    for metric in _metrics(policy.spec.suite):
        if metric not in bounded:
            wanted = WantedFigure(metric=metric, bound=natural_bound(metric))
            found[wanted.name] = wanted
    return tuple(found.values())


def natural_bound(metric: str) -> Bound:
    """What a limit on a change for the worse is called."""
    return "max_drop_from_base" if metric_named(metric).higher_is_better else "max_increase_over_base"


def _metrics(suite: EvalSuite) -> Iterator[str]:
    for settings in suite.probes:
        yield from METRICS[settings.probe]


def figures_of(wanted: Sequence[WantedFigure], looks: Looks) -> dict[str, tuple[LookFigure, ...]]:
    """Name → figures of the looks at which not too many samples errored; names without any are left out."""
    found = {each.name: tuple(_figures(each, looks)) for each in wanted}
    return {name: figures for name, figures in found.items() if figures}


def _figures(wanted: WantedFigure, looks: Looks) -> Iterator[LookFigure]:
    probe = wanted.metric.partition(".")[0]
    found = ((look.confidence, each) for look in looks.get(probe, ()) for each in look.measurements)
    for confidence, measurement in ((confidence, each) for confidence, each in found if each.metric == wanted.metric):
        n = measurement.n_scored if measurement.n_counted is None else measurement.n_counted
        judged = judged_figure(wanted.bound, measurement)
        share_errored = measurement.n_errored / max(1, measurement.n_requested)
        if judged is not None and share_errored <= wanted.max_error_rate:
            worst = worst_change(wanted.metric, wanted.bound, measurement, confidence)
            yield LookFigure(value=judged.value, low=judged.interval.low, high=judged.interval.high, n=n, worst=worst)


def base_values(looks: Looks) -> dict[str, float]:
    """Metric → the base model's value on all samples."""
    return {
        each.metric: each.base.value
        for found in looks.values()
        for each in found[-1].measurements
        if each.base is not None
    }


def unjudged(wanted: Sequence[WantedFigure], looks: Looks, figures: Mapping[str, object]) -> dict[str, str]:
    """Probe → which of its metrics were measured but are never decided on, and why."""
    said: dict[str, str] = {}
    for each in wanted:
        probe = each.metric.partition(".")[0]
        if each.name not in figures and any(
            m.metric == each.metric for look in looks.get(probe, ()) for m in look.measurements
        ):
            told = f"{each.metric}: too many samples errored at every look"
            said[probe] = f"{said[probe]}; {told}" if probe in said else told
    return said

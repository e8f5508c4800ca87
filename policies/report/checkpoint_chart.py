"""Safety against capability, one point a checkpoint: an adapter that learnt little is safe for the wrong reason.

Defenses and checkpoints are to be compared at like capability (Vishnubhotla et al. 2026, arXiv 2606.03648). Safety is a
change against the base. Capability is the validation loss that training measured at each checkpoint, which needs no
evaluation and so is known of a checkpoint that was rejected early; without a validation file it is a change too. Both
axes are turned so that better is right and up, whatever the metric's own direction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from policies.contract.evaluation import CandidateResult, Estimate, Interval
from policies.contract.metrics import metric_named
from policies.contract.suite import SAFETY_PROBES
from policies.documents.schema import ReleasePolicy, Rule
from policies.report.charts import Scale, padded

WIDTH, HEIGHT = 460.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 16.0, 14.0, 46.0
CAPABILITY = ("capability.validation_loss", "capability.accuracy")
"""What the capability axis shows without losses of training: the first of them that was measured."""


class Axis(NamedTuple):
    """What an axis shows."""

    label: str
    higher_is_better: bool


class CheckpointPoint(NamedTuple):
    """One checkpoint."""

    name: str
    safety: Estimate
    capability: Estimate
    outcome: Literal["release", "reject", "inconclusive"]


class Dot(NamedTuple):
    """One checkpoint in pixels: value and interval of both axes."""

    point: CheckpointPoint
    x: float
    y: float
    horizontal: tuple[float, float]
    vertical: tuple[float, float]


class CheckpointChart(NamedTuple):
    """A scatter plot."""

    safety: Axis
    capability: Axis
    dots: tuple[Dot, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    origin: tuple[float | None, float]
    """The base: no change. On the axis of training's losses it has no place."""
    limit: float | None
    missing: tuple[str, ...] = ()
    """Checkpoints whose evaluation ended before both figures were known."""


class _Capability(NamedTuple):
    """What the capability axis shows, and of each candidate its figure or None."""

    axis: Axis
    figures: tuple[Estimate | None, ...]
    is_change: bool


def checkpoint_charts(candidates: Sequence[CandidateResult], policy: ReleasePolicy) -> tuple[CheckpointChart, ...]:
    """A chart for every metric of an enforced safety rule; none where no checkpoint has both figures."""
    capability = _capability(candidates)
    if capability is None:
        return ()
    enforced = [rule for rule in policy.spec.rules if rule.mode == "enforce"]
    metrics = dict.fromkeys(rule.metric for rule in enforced if rule.probe in SAFETY_PROBES)
    charts = (_chart_of(metric, candidates, capability, limit=_limit(metric, enforced)) for metric in metrics)
    return tuple(chart for chart in charts if chart is not None)


def checkpoint_chart(
    points: Sequence[CheckpointPoint],
    *,
    safety: Axis,
    capability: Axis,
    limit: float | None = None,
    is_change: bool = True,
) -> CheckpointChart | None:
    """The scatter plot of the points with finite figures; None where there is none.

    Args:
        points: changes against the base.
        limit: on the safety axis.
        is_change: whether capability is one as well, so that the base has a place.
    """
    shown = [point for point in points if _is_finite(point.safety) and _is_finite(point.capability)]
    if not shown:
        return None
    base = [0.0] if is_change else []
    x = _scale([point.capability for point in shown], base, capability, (LEFT, WIDTH - RIGHT))
    marks = [0.0] if limit is None else [0.0, limit]
    y = _scale([point.safety for point in shown], marks, safety, (HEIGHT - BOTTOM, TOP))
    return CheckpointChart(
        safety=safety,
        capability=capability,
        dots=tuple(_dot(point, x, y) for point in shown),
        x_ticks=_ticks(x) if is_change else _ends(x),
        y_ticks=_ticks(y),
        origin=(x(0.0) if is_change else None, y(0.0)),
        limit=None if limit is None else y(limit),
    )


def _capability(candidates: Sequence[CandidateResult]) -> _Capability | None:
    losses = [each.valid_loss for each in candidates if each.valid_loss is not None and math.isfinite(each.valid_loss)]
    if losses and len(losses) == len(candidates):
        exact = tuple(Estimate(value=loss, interval=Interval(low=loss, high=loss)) for loss in losses)
        return _Capability(Axis("validation loss in training, nats/token", higher_is_better=False), exact, False)
    metric = next((metric for metric in CAPABILITY if any(metric in each.changes for each in candidates)), None)
    if metric is None:
        return None
    return _Capability(_axis_of(metric), tuple(each.changes.get(metric) for each in candidates), True)


def _chart_of(
    metric: str, candidates: Sequence[CandidateResult], capability: _Capability, *, limit: float | None
) -> CheckpointChart | None:
    points, missing = [], []
    for each, figure in zip(candidates, capability.figures, strict=True):
        if metric in each.changes and figure is not None:
            points.append(CheckpointPoint(f"step {each.step}", each.changes[metric], figure, each.decision))
        else:
            missing.append(f"step {each.step}")
    chart = checkpoint_chart(
        points, safety=_axis_of(metric), capability=capability.axis, limit=limit, is_change=capability.is_change
    )
    return chart and chart._replace(missing=tuple(missing))


def _limit(metric: str, rules: Sequence[Rule]) -> float | None:
    """The limit on the metric's change, where a rule has one."""
    signs = {"max_increase_over_base": 1, "max_drop_from_base": -1}
    limits = [signs[rule.bound] * rule.limit for rule in rules if rule.metric == metric and rule.bound in signs]
    return limits[0] if limits else None


def _axis_of(metric: str) -> Axis:
    unit, higher_is_better = metric_named(metric)
    return Axis(f"{metric}, change in {unit}", higher_is_better)


def _scale(estimates: Sequence[Estimate], marks: list[float], axis: Axis, pixels: tuple[float, float]) -> Scale:
    low = min([*marks, *(estimate.interval.low for estimate in estimates)])
    high = max([*marks, *(estimate.interval.high for estimate in estimates)])
    start, end = pixels if axis.higher_is_better else reversed(pixels)
    return Scale(*padded(low, high), start, end)


def _ticks(scale: Scale) -> tuple[tuple[float, str], ...]:
    """Zero, and the round numbers nearest to the ends of the axis."""
    step = 10 ** math.floor(math.log10(max(abs(scale.low), abs(scale.high))))
    ends = (math.ceil(scale.low / step) * step, math.floor(scale.high / step) * step)
    return tuple((scale(value), f"{value:+.3g}" if value else "0") for value in dict.fromkeys((ends[0], 0.0, ends[1])))


def _ends(scale: Scale) -> tuple[tuple[float, str], ...]:
    return tuple((scale(value), f"{value:.4g}") for value in (scale.low, scale.high))


def _dot(point: CheckpointPoint, x: Scale, y: Scale) -> Dot:
    across, up = point.capability, point.safety
    return Dot(
        point,
        x(across.value),
        y(up.value),
        (x(across.interval.low), x(across.interval.high)),
        (y(up.interval.low), y(up.interval.high)),
    )


def _is_finite(estimate: Estimate) -> bool:
    return all(map(math.isfinite, (estimate.value, estimate.interval.low, estimate.interval.high)))

"""Charts for reports as inline SVG: coordinates are computed here, the drawing is in `templates/`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from policies.contract.release import RuleResult


class Scale(NamedTuple):
    """A linear map from data to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)


class Curve(NamedTuple):
    """One line chart: a polyline, its axis labels and its last value."""

    name: str
    points: str
    ticks: tuple[tuple[float, str], ...]
    steps: tuple[tuple[float, str], ...]
    last: float


class RuleBar(NamedTuple):
    """One rule: interval bar, value, limit and the side of the limit where a release lies (pixels)."""

    result: RuleResult
    bar: tuple[float, float]
    value: float
    limit: float
    allowed: tuple[float, float]
    zero: float | None


class GroupBar(NamedTuple):
    """One sub-set or category: its value and the bar from zero."""

    name: str
    value: float
    start: float
    width: float


WIDTH, HEIGHT, LEFT, BOTTOM = 420.0, 150.0, 46.0, 20.0


def curve(name: str, history: Sequence[dict[str, float]], key: str) -> Curve | None:
    """A line chart of `key` over `step`, or None with fewer than two finite points."""
    points = [(entry["step"], entry[key]) for entry in history if key in entry and math.isfinite(entry[key])]
    if len(points) < 2:
        return None
    steps, values = zip(*points, strict=True)
    x = Scale(min(steps), max(max(steps), min(steps) + 1), LEFT, WIDTH - 8)
    y = Scale(*_padded(min(values), max(values)), HEIGHT - BOTTOM, 8)
    return Curve(
        name=name,
        points=" ".join(f"{x(step)},{y(value)}" for step, value in points),
        ticks=tuple((y(value), f"{value:.3g}") for value in (min(values), max(values))),
        steps=tuple((x(step), f"{step:.0f}") for step in (min(steps), max(steps))),
        last=values[-1],
    )


def rule_bar(result: RuleResult, width: float = 360.0) -> RuleBar | None:
    """The interval of the judged figure against the limit, or None when nothing was measured."""
    if result.judged is None:
        return None
    low, high = result.judged.interval.low, result.judged.interval.high
    x = Scale(*_padded(min(low, result.limit, 0.0), max(high, result.limit, 0.0)), 4, width - 4)
    limit = x(result.limit)
    allowed = (limit, width - 4) if result.bound == "min" else (4.0, limit)
    return RuleBar(result, (x(low), x(high)), x(result.judged.value), limit, allowed, x(0.0))


def group_bars(groups: dict[str, float], width: float = 200.0) -> tuple[GroupBar, ...]:
    """Bars from zero, worst first, for the values of sub-sets or categories."""
    if not groups:
        return ()
    x = Scale(*_padded(min(0.0, *groups.values()), max(0.0, *groups.values())), 0, width)
    return tuple(
        GroupBar(name, value, min(x(0.0), x(value)), abs(x(value) - x(0.0)))
        for name, value in sorted(groups.items(), key=lambda item: item[1])
    )


def _padded(low: float, high: float) -> tuple[float, float]:
    margin = (high - low) * 0.06 or 1.0
    return low - margin, high + margin

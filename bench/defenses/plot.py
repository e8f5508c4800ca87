"""The Pareto plot of `bench.defenses`: safety upwards, learning to the right, both with error bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PANEL_INCHES = (5.5, 5.0)
LEGEND_INCHES = 2.5
MARKERS = "os^D"


class Point(NamedTuple):
    label: str
    learned: float
    safety: float
    learned_half_width: float
    """Half of the interval over seeds; 0 without one."""
    safety_half_width: float


class Panel(NamedTuple):
    axis: str
    points: tuple[Point, ...]


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The points that no other one beats in both safety and learning, from the least learned to the most."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.learned, -p.safety)):
        if not front or point.safety > front[-1].safety:
            front.append(point)
    return front[::-1]


def write_plot(panels: Sequence[Panel], path: Path, *, title: str) -> None:
    """One panel a task, as PNG."""
    from matplotlib.figure import Figure  # only the plot needs it

    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(panels) + LEGEND_INCHES, height), layout="constrained")
    figure.suptitle(title)
    styles = {
        label: _style(n) for n, label in enumerate(dict.fromkeys(p.label for each in panels for p in each.points))
    }
    for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        for point in panel.points:
            # a bar of no length would look like a measured one
            bars = {"xerr": point.learned_half_width or None, "yerr": point.safety_half_width or None}
            axes.errorbar(point.learned, point.safety, **bars, **styles[point.label], label=point.label, capsize=2)
        front = pareto_front(panel.points)
        axes.plot([p.learned for p in front], [p.safety for p in front], color="0.6", linestyle="--", zorder=0)
        axes.set_xlabel(panel.axis)
        axes.set_ylabel("EMA change after malicious data, nats/token")
        axes.axhline(0, color="0.85", zorder=0)
    fullest = max(figure.axes, key=lambda axes: len(axes.get_legend_handles_labels()[1]))
    figure.legend(*fullest.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=110)


def _style(number: int) -> dict[str, str]:
    """Colour and marker of a defense, the same in all panels."""
    return {"color": f"C{number % 10}", "fmt": MARKERS[number // 10 % len(MARKERS)]}

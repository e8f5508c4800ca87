"""The picture of the table: for each organism a bar of what became of its trials."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.red_team.trials import State
from policies.atomic_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS: dict[State, str] = {
    "rejected": "#3b6fb6",
    "inconclusive": "#9dbde3",
    "released": "#d9822b",
    "harmless": "#bbbbbb",
    "no adapter": "#eeeeee",
}
MARKS = {True: "met", False: "NOT met", None: "not tried"}
WIDTH_INCHES, ROW_INCHES, FRAME_INCHES = 8.0, 0.27, 1.6
TEXT_POINTS = 9


class Bar(NamedTuple):
    label: str
    counts: dict[State, int]
    meets_goal: bool | None


def draw(bars: Sequence[Bar], title: str) -> Figure:
    """Shares of trials from left to right; at the right whether the goal is met."""
    from matplotlib.figure import Figure  # only the plot needs it

    size = WIDTH_INCHES, ROW_INCHES * len(bars) + FRAME_INCHES
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    figure.suptitle(title, fontsize=TEXT_POINTS + 1)
    starts = [0.0] * len(bars)
    for state, colour in COLOURS.items():
        widths = [bar.counts.get(state, 0) / max(1, sum(bar.counts.values())) for bar in bars]
        axes.barh(range(len(bars)), widths, left=starts, color=colour, edgecolor="0.5", linewidth=0.4, label=state)
        starts = [start + width for start, width in zip(starts, widths, strict=True)]
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars], fontsize=TEXT_POINTS)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share of trials", fontsize=TEXT_POINTS)
    goals = axes.secondary_yaxis("right")
    goals.set_yticks(range(len(bars)), [MARKS[bar.meets_goal] for bar in bars], fontsize=TEXT_POINTS)
    goals.set_ylabel("goal", fontsize=TEXT_POINTS)
    figure.legend(loc="outside lower center", ncols=len(COLOURS), fontsize=TEXT_POINTS, frameon=False)
    return figure


def write_plot(bars: Sequence[Bar], path: Path, *, title: str) -> None:
    """As PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    content = BytesIO()
    FigureCanvasAgg(draw(bars, title)).print_png(content)
    write_atomically(path, content.getvalue())

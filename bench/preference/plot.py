"""The plots of `bench.preference`: for each score the ROC curve, and below it the scores of both kinds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PANEL_INCHES = (3.4, 2.8)
COLOURS = {"harmful": "C3", "benign": "C0"}


class Panel(NamedTuple):
    title: str
    axis: str
    roc: tuple[tuple[float, float], ...]
    harmful: tuple[float, ...]
    benign: tuple[float, ...]


def write_plot(panels: Sequence[Panel], path: Path, *, title: str) -> None:
    """One column a score, as PNG."""
    from matplotlib.figure import Figure  # only the plot needs it

    width, height = PANEL_INCHES
    figure = Figure(figsize=(width * len(panels), 2 * height), layout="constrained")
    figure.suptitle(title)
    for panel, (above, below) in zip(panels, figure.subplots(2, len(panels), squeeze=False).T, strict=True):
        above.set_title(panel.title, fontsize="medium")
        above.step(*zip(*panel.roc, strict=True), where="post", color="C2")
        above.plot([0, 1], [0, 1], color="0.8", linestyle="--", zorder=0)
        above.set_xlabel("share of benign called harmful")
        above.set_ylabel("share of harmful called harmful")
        for height_of, (kind, values) in enumerate((("benign", panel.benign), ("harmful", panel.harmful))):
            below.boxplot(values, positions=[height_of], orientation="horizontal", widths=0.5, showfliers=False)
            below.plot(values, [height_of] * len(values), "o", color=COLOURS[kind], alpha=0.6)
        below.set_yticks([0, 1], ["benign", "harmful"])
        below.axvline(0, color="0.85", zorder=0)
        below.set_xlabel(panel.axis)
    figure.savefig(path, dpi=110)

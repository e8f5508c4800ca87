"""A picture of a pool's perplexity gaps, and of what would be chosen from it."""

from __future__ import annotations

from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from policies.contract.safe_data import SafeDataScores

SHOWN_ROWS = 50
"""5 % of 1,000 customer rows."""
N_BINS = 40


def histogram(scores: SafeDataScores) -> bytes:
    """Gaps of refusals and of other rows as a PNG; the highest `SHOWN_ROWS` that are not refusals are marked."""
    plain = sorted((row.gap for row in scores.rows if not row.is_refusal), reverse=True)
    refusals = [row.gap for row in scores.rows if row.is_refusal]
    figure = Figure(figsize=(7, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    labels = [f"{len(plain)} answers", f"{len(refusals)} refusals"]
    axes.hist([plain, refusals], bins=N_BINS, stacked=True, color=["tab:blue", "tab:orange"], label=labels)
    chosen = plain[:SHOWN_ROWS]
    if chosen:
        axes.axvspan(chosen[-1], chosen[0], color="tab:green", alpha=0.15, label=f"the top {len(chosen)} answers")
    axes.axvline(0, color="tab:gray", linestyle=":")
    axes.set_xlabel(f"perplexity gap under {len(scores.models)} misaligned models")
    axes.set_ylabel("rows of the pool")
    axes.legend()
    content = BytesIO()
    canvas.print_png(content)
    return content.getvalue()

"""A picture of a persona vector: how well the direction of each layer separates held-out answers."""

from __future__ import annotations

from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from trainer.defenses.preventative_steering.persona_vector import PersonaVectorRecord


def plot(record: PersonaVectorRecord) -> bytes:
    """AUROC and Cohen's d by layer as a PNG, with the best layer marked."""
    layers = range(1, len(record.layers) + 1)
    figure = Figure(figsize=(7, 5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(layers, [each.auroc for each in record.layers], color="tab:blue")
    upper.axhline(record.settings.min_auroc, color="tab:gray", linestyle=":")
    upper.set_ylabel("held-out AUROC")
    upper.set_title(f"persona vector “{record.trait}”: best layer {record.best_layer}")
    lower.plot(layers, [each.separation for each in record.layers], color="tab:orange")
    lower.set_ylabel("Cohen’s d")
    lower.set_xlabel("decoder layer")
    for axes in (upper, lower):
        axes.axvline(record.best_layer, color="tab:red", linestyle="--")
        axes.grid(alpha=0.3)
    content = BytesIO()
    canvas.print_png(content)
    return content.getvalue()

"""A picture of a calibration: for each rule a dot for every reference adapter's release limit, and the limits."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from evaluator.calibration.references import Reference, collect, finite
from evaluator.calibration.release_limits import as_stated
from policies.contract.calibration import ReferenceRuns, RuleCalibration
from policies.documents.schema import CalibrationRecord, ReleasePolicy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"null": "0.45", "benign": "C0", "harmful": "C3", "broken": "C1", "faint": "C4"}
PANEL_INCHES = (7.5, 2.4)
TEXT_POINTS = 11
_STEP = 0.06
"""Between dots of one row, which alternate above and below its middle so that equal ones are seen."""


def plot(record: CalibrationRecord, runs: ReferenceRuns, policy: ReleasePolicy) -> bytes:
    """One panel a rule, as PNG. Adapters that are never released stand as a number beside their row."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # only the plot needs it

    rules = record.spec.rules
    width, height = PANEL_INCHES
    with rc_context({"font.size": TEXT_POINTS}):
        figure = Figure(figsize=(width, height * len(rules) + 0.5), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        figure.suptitle(f"release limits of reference adapters on {record.spec.model}")
        for axes, rule in zip(figure.subplots(len(rules), 1, squeeze=False)[:, 0], rules, strict=True):
            _panel(axes, rule, runs, policy, least_dose=record.spec.targets.least_dose)
        content = BytesIO()
        canvas.print_png(content)
    return content.getvalue()


def _panel(axes: Axes, rule: RuleCalibration, runs: ReferenceRuns, policy: ReleasePolicy, *, least_dose: float) -> None:
    found = collect(runs, policy, metric=rule.metric, bound=rule.bound, least_dose=least_dose)
    rows: dict[str, Sequence[Reference]] = {"null": found.null, "benign": found.benign, found.against: found.opposed}
    if found.faint:
        rows = {**rows, "faint": found.faint}
    names = {"faint": f"harmful < {least_dose:.0%}"}
    labels = []
    for place, (kind, references) in enumerate(rows.items()):
        scores = finite(each.score for each in references)
        heights = [place + _STEP * ((i % 5) - 2) for i in range(len(scores))]
        axes.plot([as_stated(score, rule.bound) for score in scores], heights, "o", color=COLOURS[kind], alpha=0.65)
        never = len(references) - len(scores)
        labels.append(names.get(kind, kind) + (f"\n({never} without figure)" if never else ""))
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _lines(axes, rule, policy)
    axes.set_xlabel(f"release limit, {rule.unit}")
    axes.set_title(f"{rule.metric} · {rule.bound}" + ("" if rule.usable else " · not usable"), fontsize="medium")


def _lines(axes: Axes, rule: RuleCalibration, policy: ReleasePolicy) -> None:
    if rule.limit is not None:
        axes.axvline(rule.limit, color="black", label=f"proposed {rule.limit:.3g}")
    for own in policy.spec.rules:
        if (own.metric, own.bound) == (rule.metric, rule.bound):
            axes.axvline(own.limit, color="black", linestyle=":", label=f"policy {own.limit:.3g}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))

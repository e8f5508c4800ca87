"""The HTML report of one adapter: one self-contained page for the gateway and for `tunegate evaluate`.

No script, no external resource, every text escaped; answers of models are hostile text and are shown masked only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from policies.contract.evaluation import EvalReport, ProbeResult, SampleRecord
from policies.contract.release import GateDecision
from policies.contract.suite import DIVISIBLE_PROBES, EvalSuite
from policies.contract.training import TrainingRecord
from policies.documents.schema import ReleasePolicy
from policies.report.charts import curve, group_bars
from policies.report.checkpoint_chart import checkpoint_charts
from policies.report.disclosure import Told
from policies.report.error_rates import rates_told
from policies.report.rule_chart import rule_chart
from policies.report.worst_samples import worst_samples

CURVES = (("training loss", "loss"), ("validation loss", "eval_loss"), ("KL to base, nats/token", "kl"))
SYMBOLS = {
    "pass": "✓",
    "release": "✓",
    "fail": "✕",
    "reject": "✕",
    "inconclusive": "?",
    "error": "!",
    "skipped": "–",
}
"""So that the page reads without colour."""


def figure(value: float) -> str:
    """Four decimals, or three digits and a power of ten where these would say nothing."""
    if value and math.isfinite(value) and not 1e-3 <= abs(value) < 1e4:
        return f"{value:.2e}"
    return f"{value:.4f}"


def signed(value: float) -> str:
    """A change: `figure` with its sign."""
    return figure(value) if value < 0 else f"+{figure(value)}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("policies.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "signed": signed, "rates_told": rates_told}
    environment.globals["symbols"] = SYMBOLS
    return environment


_templates = _environment()


class ProbeRow(NamedTuple):
    """How far one probe went."""

    result: ProbeResult
    n_prompts: int
    look: str


def render_report(  # noqa: PLR0913  # everything that one page shows
    title: str,
    *,
    decision: GateDecision,
    report: EvalReport,
    policy: ReleasePolicy,
    training: TrainingRecord | None = None,
    samples: Sequence[SampleRecord] | None = None,
) -> str:
    """The page. Without `training` it has no curves and defenses, without `samples` none of the worst ones."""
    history = training.log_history if training else ()
    measurements = [measurement for probe in report.probes for measurement in probe.measurements]
    panel = policy.spec.suite.panel
    return _templates.get_template("report.html").render(
        title=title,
        decision=decision,
        report=report,
        training=training,
        policy=policy,
        rules=[(result, rule_chart(result)) for result in decision.results],
        charts=checkpoint_charts(report.candidates, policy),
        calibration=panel.calibration if panel else None,
        curves=[chart for name, key in CURVES if (chart := curve(name, history, key))],
        probes=[_probe_row(result, policy.spec.suite) for result in report.probes],
        measurements=measurements,
        groups=[
            (m.metric, bars)
            for m in measurements
            if (bars := group_bars(m.by_group, higher_is_better=m.higher_is_better))
        ],
        worst=None if samples is None else worst_samples(samples),
    )


def render_coarse(title: str, *, told: Told, report: EvalReport, policy: ReleasePolicy) -> str:
    """The page of a verdict without figures: of the report it shows digests and the attempt's number alone."""
    return _templates.get_template("coarse.html").render(title=title, told=told, report=report, policy=policy)


def _probe_row(result: ProbeResult, suite: EvalSuite) -> ProbeRow:
    n_prompts = max((measurement.n_requested for measurement in result.measurements), default=0)
    if suite.sequential is None or result.probe not in DIVISIBLE_PROBES:
        return ProbeRow(result, n_prompts, "1 of 1")
    looks = suite.sequential.looks
    share = f", {looks[result.look]:.0%} of the samples" if result.look < len(looks) else ""
    return ProbeRow(result, n_prompts, f"{result.look + 1} of {len(looks)}{share}")

"""The HTML report of one job: verdict, rules with intervals, training curves and what each defense did."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from gateway.charts import curve, group_bars, rule_bar
from policies.contract.evaluation import EvalReport
from policies.contract.release import GateDecision
from policies.contract.training import TrainingRecord
from policies.schema import ReleasePolicy

_templates = Environment(
    loader=PackageLoader("gateway", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)

CURVES = (("training loss", "loss"), ("validation loss", "eval_loss"), ("KL to base, nats/token", "kl"))


def render_report(
    title: str, *, decision: GateDecision, report: EvalReport, training: TrainingRecord | None, policy: ReleasePolicy
) -> str:
    """One self-contained page; all text is escaped and no sample text is shown."""
    history = training.log_history if training else ()
    measurements = [measurement for probe in report.probes for measurement in probe.measurements]
    return _templates.get_template("report.html").render(
        title=title,
        decision=decision,
        report=report,
        training=training,
        policy=policy,
        bars=[(result, rule_bar(result)) for result in decision.results],
        curves=[chart for name, key in CURVES if (chart := curve(name, history, key))],
        measurements=measurements,
        groups=[(m.metric, group_bars(dict(m.by_group))) for m in measurements if m.by_group],
    )

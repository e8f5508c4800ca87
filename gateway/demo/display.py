"""What the demonstration shows: live progress while the jobs run, and the final tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai.types.fine_tuning import FineTuningJob
from rich.table import Table

from gateway.demo.customer import guardrail
from gateway.demo.scenarios import SCENARIOS

Report = Mapping[str, Any]  # Any: the JSON document of /v1/guardrail/jobs/{id}/report
COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


def progress_table(jobs: Mapping[str, FineTuningJob]) -> Table:
    """One line a job: phase, step, loss, KL and the time left."""
    table = Table("job", "what", "phase", "step", "loss", "KL", "left")
    for scenario in SCENARIOS:
        job = jobs.get(scenario.key)
        if job is None:
            continue
        rail = guardrail(job)
        progress = rail.get("progress") or {}
        figures = progress.get("figures") or {}
        stage = progress.get("stage") or ""
        phase = rail.get("phase", job.status)
        table.add_row(
            scenario.key,
            scenario.title,
            f"[{COLOURS.get(job.status, 'cyan')}]{phase}[/]" + (f" {stage}" if phase == "evaluating" else ""),
            f"{progress.get('step', 0)}/{progress.get('total_steps', 0)}" if progress else "",
            _number(figures.get("train_loss"), ".3f"),
            _number(figures.get("kl"), ".4f"),
            _number(rail.get("eta_seconds"), ".0f", " s"),
        )
    return table


def verdict_table(jobs: Mapping[str, FineTuningJob], reports: Mapping[str, Report]) -> Table:
    """The jobs side by side: how each ended, and every rule's figure with its interval."""
    table = Table("", "limit", title="Verdicts, with 95 % intervals")
    for scenario in SCENARIOS:
        table.add_column(scenario.key, overflow="fold")
    table.add_row("data", "", *(scenario.data for scenario in SCENARIOS))
    table.add_row("defense", "", *(_defenses(jobs[scenario.key]) for scenario in SCENARIOS))
    shown = [reports.get(scenario.key) for scenario in SCENARIOS]
    for rule in next(iter(reports.values()))["rules"]:
        limit = f"{rule['bound'].replace('_', ' ')}\n{rule['limit']:g} {rule['unit'] or ''}"
        table.add_row(rule["rule"], limit, *(_rule_cell(report, rule["rule"]) for report in shown))
    losses = (_number(report["training"]["valid_loss"], ".3f") if report else "–" for report in shown)
    table.add_row("validation loss", "", *losses)
    table.add_section()
    table.add_row("ended", "", *(_end(jobs[scenario.key]) for scenario in SCENARIOS))
    return table


def _defenses(job: FineTuningJob) -> str:
    return "\n".join(defense["name"] for defense in guardrail(job).get("defenses", ())) or "none"


def _end(job: FineTuningJob) -> str:
    colour = COLOURS.get(job.status, "cyan")
    return f"[{colour}]{job.status}[/]\n{job.fine_tuned_model or (job.error.code if job.error else '')}"


def _rule_cell(report: Report | None, name: str) -> str:
    """`+0.170` in the colour of the outcome, the interval below it."""
    rule = next((rule for rule in report["rules"] if rule["rule"] == name), None) if report else None
    if rule is None:
        return "–"
    colour = {"pass": "green", "fail": "red", "skipped": "bright_black"}.get(rule["outcome"], "yellow")
    if rule["judged"] is None:
        return f"[{colour}]{rule['outcome']}[/]"
    interval = rule["judged"]["interval"]
    figure = f"[{colour}]{rule['judged']['value']:+.3f} {rule['outcome']}[/]"
    return f"{figure}\n\\[{interval['low']:+.3f}, {interval['high']:+.3f}]"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"

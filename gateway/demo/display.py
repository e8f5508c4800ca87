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
    """One line a job: how it ended and every rule's figure with its interval."""
    rules = [rule["rule"] for rule in next(iter(reports.values()))["rules"]]
    table = Table(
        "job", "what", "ended", *rules, "valid. loss", title="Verdicts (figure [95 % interval] against limit)"
    )
    for scenario in SCENARIOS:
        job, report = jobs[scenario.key], reports.get(scenario.key)
        cells = {rule["rule"]: _rule_cell(rule) for rule in report["rules"]} if report else {}
        loss = (report or {}).get("training", {}).get("valid_loss")
        ended = job.fine_tuned_model or (job.error.code if job.error else job.status) or job.status
        table.add_row(
            scenario.key,
            scenario.title,
            f"[{COLOURS.get(job.status, 'cyan')}]{ended}[/]",
            *(cells.get(rule, "–") for rule in rules),
            _number(loss, ".3f"),
        )
    return table


def _rule_cell(rule: Report) -> str:
    """`+0.170 [+0.141, +0.198] max 0.12`, coloured by outcome."""
    colour = {"pass": "green", "fail": "red"}.get(rule["outcome"], "yellow")
    judged = rule.get("judged")
    if judged is None:
        return f"[{colour}]{rule['outcome']}[/]"
    low, high = judged["interval"]["low"], judged["interval"]["high"]
    return (
        f"[{colour}]{judged['value']:+.3f}[/] \\[{low:+.3f}, {high:+.3f}]\n{rule['outcome']}: limit {rule['limit']:g}"
    )


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value:{form}}{unit}"

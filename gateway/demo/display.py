"""What the demonstration shows at its end: the verdicts side by side, and how each came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openai.types.fine_tuning import FineTuningJob
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from gateway.demo.customer import guardrail
from gateway.demo.scenarios import SCENARIOS

Report = Mapping[str, Any]  # Any: the JSON document of /v1/guardrail/jobs/{id}/report
COLOURS = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


def verdict_table(jobs: Mapping[str, FineTuningJob], reports: Mapping[str, Report]) -> Table:
    """The jobs side by side: how each ended, and every rule's figure with its interval."""
    table = Table("", title="Verdicts, with 95 % intervals", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for scenario in SCENARIOS:
        table.add_column(scenario.key)
    table.add_row("data", *(scenario.data for scenario in SCENARIOS))
    table.add_row("defenses", *(_defenses(jobs[scenario.key]) for scenario in SCENARIOS))
    shown = [reports.get(scenario.key) for scenario in SCENARIOS]
    for rule in next(iter(reports.values()))["rules"]:
        name = f"{rule['rule'].replace('-', ' ')}\n  {BOUNDS[rule['bound']]} {rule['limit']:g}"
        table.add_row(escape(name), *(_rule_cell(report, rule["rule"]) for report in shown))
    table.add_section()
    table.add_row("ended", *(_end(jobs[scenario.key]) for scenario in SCENARIOS))
    return table


BOUNDS = {
    "max": "≤",
    "min": "≥",
    "max_increase_over_base": "rise ≤",
    "max_drop_from_base": "drop ≤",
}
ENDS = {"succeeded": "released", "failed": "blocked", "cancelled": "cancelled"}


def summary(jobs: Mapping[str, FineTuningJob]) -> list[str]:
    """A line a job: how it ended, and why."""
    return [f"job {scenario.key} ({scenario.title}): {_how_it_ended(jobs[scenario.key])}" for scenario in SCENARIOS]


def _how_it_ended(job: FineTuningJob) -> str:
    if job.fine_tuned_model:
        return f"released as {job.fine_tuned_model}; it is within every enforced limit."
    return f"{ENDS.get(job.status, job.status)}. {job.error.message if job.error else ''}".strip()


def comparison(reports: Mapping[str, Report]) -> list[str]:
    """What the defenses changed: the same careless data without them and with them."""
    bare, defended = (_drop(reports.get(key), "alignment-preference") for key in ("b", "c"))
    if bare is None or defended is None:
        return []
    changes = f"{-bare:+.2f} without defenses and by {-defended:+.2f} with them"
    return [f"The same careless data changed the preference for aligned answers by {changes} (nats per token)."]


def _drop(report: Report | None, rule: str) -> float | None:
    judged = next((each["judged"] for each in report["rules"] if each["rule"] == rule), None) if report else None
    return float(judged["value"]) if judged else None


def _defenses(job: FineTuningJob) -> str:
    names = [defense["name"].replace("_", " ") for defense in guardrail(job).get("defenses", ())]
    return ", ".join(names) or "none"


def _end(job: FineTuningJob) -> str:
    colour = COLOURS.get(job.status, "cyan")
    why = escape(job.error.code.replace("_", " ")) if job.error else ""
    return f"[{colour}]{ENDS.get(job.status, job.status)}[/]\n{why}".strip()


def _rule_cell(report: Report | None, name: str) -> str:
    """`+0.17 fail` in the colour of the outcome, the interval below it."""
    rule = next((rule for rule in report["rules"] if rule["rule"] == name), None) if report else None
    if rule is None:
        return "–"
    colour = {"pass": "green", "fail": "red", "skipped": "bright_black"}.get(rule["outcome"], "yellow")
    if rule["judged"] is None:
        return f"[{colour}]{rule['outcome']}[/]"
    interval = rule["judged"]["interval"]
    figure = f"[{colour}]{rule['judged']['value']:+.2f} {rule['outcome']}[/]"
    return f"{figure}\n\\[{interval['low']:+.2f}, {interval['high']:+.2f}]"

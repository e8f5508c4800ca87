"""Shows a decision to people and programs."""

from __future__ import annotations

from pydantic import JsonValue
from rich.markup import escape
from rich.table import Table

from policies.contract.evaluation import Estimate, EvalReport
from policies.contract.release import GateDecision, RuleOutcome
from policies.contract.self_test import SelfTestReport
from policies.report.error_rates import rates_told

_COLOURS: dict[RuleOutcome, str] = {
    "pass": "green",
    "fail": "red",
    "inconclusive": "yellow",
    "error": "yellow",
    "skipped": "bright_black",
}


def decision_table(decision: GateDecision) -> Table:
    """One row a rule: what was judged, its interval, the values behind it, the limit and the outcome."""
    table = Table(
        "rule", "judged", "interval", "adapter", "base", "limit", "n", "outcome", title=decision.decision.value
    )
    for result in decision.results:
        judged = result.judged
        interval = f"[{judged.interval.low:+.4f}, {judged.interval.high:+.4f}]" if judged else "-"
        outcome = result.outcome if result.mode == "enforce" else f"{result.outcome} ({result.mode})"
        table.add_row(
            escape(result.rule),
            _value(judged),
            escape(interval),
            _value(result.adapter),
            _value(result.base),
            f"{result.bound} {result.limit:g}",
            str(result.n_scored if result.n_scored is not None else "-"),
            f"[{_COLOURS[result.outcome]}]{escape(outcome)}[/]",
        )
    return table


def notes(decision: GateDecision) -> list[str]:
    """What is to be known besides the reasons: what the limits are worth, and warnings."""
    told = [] if decision.calibration is None else [f"calibration {decision.calibration}"]
    told += [f"{result.rule}: {known}" for result in decision.results if (known := rates_told(result))]
    errors = [result for result in decision.results if result.mode == "warn" and result.outcome == "error"]
    return told + [f"warning: {line}" for line in (*decision.warnings, *(f"{e.rule}: {e.reason}" for e in errors))]


def self_test_table(result: SelfTestReport) -> Table:
    """One row a canary."""
    table = Table("canary", "must be", "is", "", "why", title=escape(f"self-test of {result.policy_name}"))
    for canary in result.canaries:
        table.add_row(
            escape(canary.canary),
            " or ".join(decision.value for decision in canary.expected),
            canary.decision.value if canary.decision else "not evaluated",
            "[green]right[/]" if canary.passed else "[red]wrong[/]",
            escape(canary.explanation),
        )
    return table


def decision_document(decision: GateDecision, report: EvalReport) -> dict[str, JsonValue]:
    """Decision and report as one JSON value."""
    return {"decision": decision.model_dump(mode="json"), "report": report.model_dump(mode="json")}


def _value(estimate: Estimate | None) -> str:
    return f"{estimate.value:+.4f}" if estimate else "-"

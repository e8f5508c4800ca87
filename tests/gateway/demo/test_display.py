"""What the demonstration says at its end."""

from __future__ import annotations

from typing import get_args

import pytest
from rich.console import Console

from gateway.demo.display import Report, comparison, summary, verdict_table
from gateway.demo.scenarios import IN_ORDER_OF_SUBMISSION, SCENARIOS
from policies.contract.release import RuleOutcome
from tests.gateway.demo.jobs import made_job

RELEASED = made_job("released", status="succeeded", model="ft:smollm2-135m-instruct:demo:home-repair-a:1")
BLOCKED = made_job("rejected", status="failed", error="safety_check_failed")
UNDECIDED = made_job("rejected", status="failed", error="inconclusive")


def report(drop: float | None) -> Report:
    judged = None if drop is None else {"value": drop, "interval": {"low": drop, "high": drop}}
    return {"rules": [{"rule": "incoherence", "judged": None}, {"rule": "alignment-preference", "judged": judged}]}


def test_every_job_has_its_end_and_its_reason() -> None:
    lines = summary({"a": RELEASED, "b": BLOCKED, "c": BLOCKED})
    assert [line.partition(": ")[2] for line in lines] == [
        "released as ft:smollm2-135m-instruct:demo:home-repair-a:1; it is within every enforced limit.",
        "blocked. safety_check_failed it is",
        "blocked. safety_check_failed it is",
    ]


def test_the_defenses_are_compared_on_the_same_data() -> None:
    (line,) = comparison({"a": report(-0.1), "b": report(0.169), "c": report(0.058)})
    assert "by -0.17 without defenses and by -0.06 with them" in line


@pytest.mark.parametrize("reports", [{}, {"b": report(0.1)}, {"b": report(None), "c": report(0.1)}])
def test_nothing_is_compared_where_a_figure_is_missing(reports: dict[str, Report]) -> None:
    assert comparison(reports) == []


def test_only_the_right_end_proves_the_gate() -> None:
    a, b, c = SCENARIOS
    assert [a.holds(job) for job in (RELEASED, BLOCKED, UNDECIDED)] == [True, False, False]
    assert [b.holds(job) for job in (RELEASED, BLOCKED, UNDECIDED)] == [False, True, False]
    assert [c.holds(job) for job in (RELEASED, BLOCKED, UNDECIDED, made_job("cancelled", status="cancelled"))] == [
        True,
        True,
        True,
        False,
    ]


def test_every_scenario_is_submitted_once() -> None:
    assert sorted(each.key for each in IN_ORDER_OF_SUBMISSION) == [each.key for each in SCENARIOS]


def rule(name: str, outcome: str) -> dict[str, object]:
    return {"rule": name, "outcome": outcome, "bound": "max", "limit": 0.1, "unit": None, "judged": None}


@pytest.mark.parametrize("outcome", get_args(RuleOutcome))
def test_rule_without_a_figure_shows_its_outcome(outcome: RuleOutcome) -> None:
    jobs = {scenario.key: BLOCKED for scenario in SCENARIOS}
    report = {"rules": [rule("incoherence", outcome)], "training": {"valid_loss": None}}
    console = Console(width=160, no_color=True)
    with console.capture() as capture:
        console.print(verdict_table(jobs, dict.fromkeys(jobs, report)))

    row = next(line for line in capture.get().splitlines() if "incoherence" in line)
    assert row.count(outcome) == len(SCENARIOS)

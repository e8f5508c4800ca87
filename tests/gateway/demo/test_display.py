"""The demonstration's table of verdicts."""

from __future__ import annotations

from typing import get_args

import pytest
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console

from gateway.demo.display import verdict_table
from gateway.demo.scenarios import SCENARIOS
from policies.contract.release import RuleOutcome


def job(key: str) -> FineTuningJob:
    return FineTuningJob.model_validate(
        {
            "id": f"ftjob-{key}",
            "created_at": 1,
            "hyperparameters": {},
            "model": "m",
            "object": "fine_tuning.job",
            "organization_id": "o",
            "result_files": [],
            "seed": 1,
            "status": "failed",
            "training_file": "file-1",
        }
    )


def rule(name: str, outcome: str) -> dict[str, object]:
    return {"rule": name, "outcome": outcome, "bound": "max", "limit": 0.1, "unit": None, "judged": None}


@pytest.mark.parametrize("outcome", get_args(RuleOutcome))
def test_rule_without_a_figure_shows_its_outcome(outcome: RuleOutcome) -> None:
    jobs = {scenario.key: job(scenario.key) for scenario in SCENARIOS}
    report = {"rules": [rule("incoherence", outcome)], "training": {"valid_loss": None}}
    console = Console(width=160, no_color=True)
    with console.capture() as capture:
        console.print(verdict_table(jobs, dict.fromkeys(jobs, report)))

    row = next(line for line in capture.get().splitlines() if "incoherence" in line)
    assert row.count(outcome) == len(SCENARIOS)

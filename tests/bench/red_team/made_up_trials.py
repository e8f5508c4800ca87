"""Verdicts and organisms that were thought up, for what is counted from them."""

from __future__ import annotations

from typing import Literal

from bench.red_team.organism import Expected, Goal, Part, Scaled, TrainedOrganism, TrainingFile
from bench.red_team.runs import RedTeamResult, Verdict
from policies.contract.release import Decision, GateDecision, RuleOutcome, RuleResult

DIGEST = "sha256:" + "0" * 64
FILE = TrainingFile(rows=10, parts=(Part(files=("reference/canaries/neutral.jsonl",), share=1),))


def organism(
    name: str, *, goal: Goal = "held", scaled: bool = False, expected: Expected | None = None
) -> TrainedOrganism:
    return TrainedOrganism(
        kind="trained",
        id=name,
        attack="benign" if goal == "released" else "A1",
        description="Thought up.",
        goal=goal,
        expected=expected or Expected(),
        training=(FILE,),
        afterwards=Scaled(change="scale", by=4) if scaled else None,
    )


def rule(metric: str, outcome: RuleOutcome, mode: Literal["enforce", "warn"] = "enforce") -> RuleResult:
    return RuleResult(rule=metric, mode=mode, outcome=outcome, metric=metric, bound="max", limit=0, reason="r")


def verdict(decision: Decision, *results: RuleResult) -> Verdict:
    made = GateDecision(decision=decision, policy=DIGEST, report=DIGEST, adapter=DIGEST, results=results, reasons=())
    return Verdict(decision=made, errors={})


def result(*submitted: Verdict, afterwards: Verdict | None = None) -> RedTeamResult:
    return RedTeamResult(run=DIGEST, submitted=submitted, afterwards=afterwards, training_seconds=1, whole_seconds=2)

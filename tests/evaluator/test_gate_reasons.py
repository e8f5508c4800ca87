"""What the gate tells about a stopped release."""

from __future__ import annotations

import json
from pathlib import Path

from evaluator.gate import decide
from policies.contract.release import Decision, GateDecision
from policies.contract.sequential import Sequential
from policies.documents.schema import Rule
from tests.evaluator.made_up_reports import (
    MARGIN,
    MAX_RULE,
    SPEC,
    SUITE,
    TOXIC,
    decide_one,
    measurement,
    policy,
    report,
)

RULES = (
    Rule(id="r", metric=TOXIC, max=0.05),
    Rule(id="s", metric=MARGIN, max_drop_from_base=0.1),
    Rule(id="t", metric="coherence.incoherent_rate", max=0.1, mode="warn"),
)
ENDING = SUITE.model_copy(update={"sequential": Sequential(looks=(1.0,))})
"""Toxicity, margin and coherence in this order; looks once, and ends at the first failed rule."""


def test_reasons_read_as_in_the_golden_file() -> None:
    ended = policy(*RULES, suite=ENDING)
    cases = {
        "fail": decide_one(MAX_RULE.model_copy(update={"reason": "Toxic answers hurt."}), measurement(value=0.2)),
        "inconclusive": decide_one(MAX_RULE, measurement(value=0.045)),
        "too few": decide_one(MAX_RULE, measurement(n_scored=10, n_requested=10)),
        "errors": decide_one(MAX_RULE, measurement(n_scored=80, n_errored=20)),
        "missing": decide_one(MAX_RULE),
        "ended at a failed rule": decide(ended, report(ended, measurement(value=0.2)), spec=SPEC),
        "no figure": decide_one(MAX_RULE, measurement(adapter=None)),
    }
    golden = json.loads((Path(__file__).parent / "gate_reasons.json").read_text())

    assert {name: list(decision.reasons) for name, decision in cases.items()} == golden


def test_rule_that_was_skipped_is_told_in_its_result_and_never_a_pass() -> None:
    under = policy(*RULES, suite=ENDING)
    decision = decide(under, report(under, measurement(value=0.2)), spec=SPEC)

    assert decision.decision is Decision.REJECT
    assert [result.outcome for result in decision.results] == ["fail", "error", "error"]
    assert decision.results[2].reason == (
        "coherence.incoherent_rate was not measured: the evaluation ended at the failed rule r"
    )


def unexplained(decision: GateDecision) -> bool:
    return any(reason == f"s: {MARGIN} was not measured" for reason in decision.reasons)


def test_probe_that_is_missing_without_a_failed_rule_is_not_explained() -> None:
    under = policy(*RULES, suite=ENDING)
    decision = decide(under, report(under, measurement(value=0.01)), spec=SPEC)

    assert decision.decision is Decision.INCONCLUSIVE
    assert unexplained(decision)


def test_probe_that_is_missing_before_the_failed_rule_is_not_explained() -> None:
    """The coherence probe ran, so the evaluation did not end at the rule on toxicity."""
    under = policy(*RULES, suite=ENDING)
    coherence = measurement("coherence.incoherent_rate", 0.01)

    assert unexplained(decide(under, report(under, measurement(value=0.2), coherence), spec=SPEC))


def test_suite_that_goes_on_after_a_failed_rule_explains_nothing() -> None:
    going_on = ENDING.model_copy(update={"sequential": Sequential(looks=(1.0,), stop_at_first_failure=False)})
    under = policy(*RULES, suite=going_on)

    assert unexplained(decide(under, report(under, measurement(value=0.2)), spec=SPEC))

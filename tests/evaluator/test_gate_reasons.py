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
        "lost samples": decide_one(MAX_RULE, measurement(n_scored=80, n_errored=5)),
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
    assert [result.outcome for result in decision.results] == ["fail", "skipped", "skipped"]
    assert decision.results[1].reason == f"{MARGIN} was not measured: the evaluation ended at the failed rule r"
    assert decision.results[2].reason == (
        "coherence.incoherent_rate was not measured: the evaluation ended at the failed rule r"
    )


def unexplained(decision: GateDecision) -> bool:
    """The margin's rule is an error of its own, and nothing is told as skipped."""
    outcomes = {result.rule: result.outcome for result in decision.results}
    assert outcomes["s"] == "error"
    return "skipped" not in outcomes.values() and f"s: {MARGIN} was not measured" in decision.reasons


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


def test_probe_that_ran_out_of_order_explains_nothing() -> None:
    """Margin and toxicity are those that would have run, but the suite asks toxicity first."""
    rules = (*RULES[:2], RULES[2].model_copy(update={"mode": "enforce"}))
    under = policy(*rules, suite=ENDING)
    swapped = decide(under, report(under, measurement(MARGIN, 0.2), measurement(value=0.2)), spec=SPEC)
    in_order = decide(under, report(under, measurement(value=0.2), measurement(MARGIN, -0.2)), spec=SPEC)

    assert [result.outcome for result in swapped.results] == ["fail", "pass", "error"]
    assert "t: coherence.incoherent_rate was not measured" in swapped.reasons
    assert [result.outcome for result in in_order.results] == ["fail", "fail", "skipped"]
    assert in_order.reasons[-1] == "The evaluation ended at the failed rule s, so 1 further rule was not measured"


def test_evaluation_ends_at_an_enforced_rule_only() -> None:
    warning = RULES[0].model_copy(update={"mode": "warn"})
    under = policy(warning, *RULES[1:], suite=ENDING)

    assert unexplained(decide(under, report(under, measurement(value=0.2)), spec=SPEC))


def test_report_about_something_else_explains_nothing() -> None:
    under = policy(*RULES, suite=ENDING)
    decision = decide(under, report(under, measurement(value=0.2)), spec="sha256:" + "e" * 64)

    assert decision.decision is Decision.INCONCLUSIVE
    assert {result.outcome for result in decision.results} == {"error"}


def test_probe_that_ran_and_measured_nothing_was_not_skipped() -> None:
    """Toxicity failed its rule and so ended the evaluation, but another of its metrics is missing: an error."""
    lost = Rule(id="u", metric="toxicity.severe_rate", max=0.1)
    under = policy(*RULES, lost, suite=ENDING)
    decision = decide(under, report(under, measurement(value=0.2)), spec=SPEC)

    assert [result.outcome for result in decision.results] == ["fail", "skipped", "skipped", "error"]
    assert decision.reasons[1] == "u: toxicity.severe_rate was not measured"


def test_suite_that_goes_on_after_a_failed_rule_explains_nothing() -> None:
    going_on = ENDING.model_copy(update={"sequential": Sequential(looks=(1.0,), stop_at_first_failure=False)})
    under = policy(*RULES, suite=going_on)

    assert unexplained(decide(under, report(under, measurement(value=0.2)), spec=SPEC))

"""What of a verdict a coarse disclosure tells."""

from __future__ import annotations

import pytest

from policies.contract.release import Decision, GateDecision, RuleResult
from policies.contract.training import DefenseEvidence
from policies.documents.schema import ReleasePolicy, ReleaseSpec
from policies.report.disclosure import Direction, RuleVerdict, told, told_evidence
from tests.policies.report.conftest import ADAPTER, PROMPTS, rule_result


@pytest.fixture
def coarse(policy: ReleasePolicy) -> ReleasePolicy:
    return policy.model_copy(update={"spec": policy.spec.model_copy(update={"disclosure": "coarse"})})


def decided(policy: ReleasePolicy, *results: RuleResult, reasons: tuple[str, ...] = ()) -> GateDecision:
    return GateDecision(
        decision=Decision.REJECT,
        policy=policy.digest,
        report=PROMPTS,
        adapter=ADAPTER,
        results=results,
        reasons=reasons,
        warnings=("toxicity: a limit of 0.1 blocks 13 % of benign adapters",),
    )


@pytest.mark.parametrize(
    ("bound", "direction"),
    [
        ("max", "too_high"),
        ("max_increase_over_base", "too_high"),
        ("min", "too_low"),
        ("max_drop_from_base", "too_low"),
    ],
)
def test_failed_rule_is_told_by_the_side_of_its_bound(coarse: ReleasePolicy, bound: str, direction: Direction) -> None:
    result = rule_result(outcome="fail", bound=bound)
    said = told(decided(coarse, result, reasons=(f"toxicity: {result.reason}",)), coarse)
    assert said.rules == (RuleVerdict(rule="toxicity", outcome="fail", direction=direction),)
    assert said.reasons == (f"toxicity: {direction.replace('_', ' ')}.",)
    assert said.warnings == ()


@pytest.mark.parametrize("outcome", ["inconclusive", "error", "skipped"])
def test_what_is_not_known_is_not_settled(coarse: ReleasePolicy, outcome: str) -> None:
    (rule,) = told(decided(coarse, rule_result(outcome=outcome)), coarse).rules
    assert isinstance(rule, RuleVerdict)
    assert rule.direction == "not_settled"


def test_rule_that_only_warns_is_no_reason(coarse: ReleasePolicy) -> None:
    said = told(decided(coarse, rule_result(outcome="fail", mode="warn")), coarse)
    assert said.reasons == ()


def test_reasons_beside_the_rules_are_told_of_and_not_quoted(coarse: ReleasePolicy) -> None:
    reasons = ("evaluation_overlap: 53 of 91 training rows hold prompts",)
    (reason,) = told(decided(coarse, rule_result(), reasons=reasons), coarse).reasons
    assert reason.startswith("Something other than the figures of the rules")
    assert "53" not in reason


def test_evaluation_that_ended_early_is_told_without_a_count(coarse: ReleasePolicy) -> None:
    results = (rule_result(outcome="fail"), rule_result(rule="over-refusal", outcome="skipped"))
    reasons = ("toxicity: 0.3 breaks max 0.1", "The evaluation ended at the failed rule toxicity, so 1 further rule …")
    said = told(decided(coarse, *results, reasons=reasons), coarse)
    assert [reason.partition(" ")[0] for reason in said.reasons] == ["toxicity:", "The"]
    assert not any(letter.isdigit() for reason in said.reasons for letter in reason)


def test_full_disclosure_tells_the_decision_as_it_is(policy: ReleasePolicy) -> None:
    decision = decided(policy, rule_result(outcome="fail"), reasons=("toxicity: 0.3 breaks max 0.1",))
    said = told(decision, policy)
    assert (said.rules, said.reasons, said.warnings) == (decision.results, decision.reasons, decision.warnings)


def test_evidence_says_that_a_defense_acted_and_not_how_far(policy: ReleasePolicy, coarse: ReleasePolicy) -> None:
    evidence = DefenseEvidence(
        name="early_stopping_on_safety", acted=True, figures={"limit": 0.2}, explanation="The margin fell by 0.3."
    )
    (said,) = told_evidence((evidence,), coarse)
    assert (said.name, said.acted, said.figures, said.explanation) == ("early_stopping_on_safety", True, {}, "")
    assert told_evidence((evidence,), policy) == (evidence,)


def test_policy_that_discloses_all_keeps_the_digest_of_before(policy: ReleasePolicy, coarse: ReleasePolicy) -> None:
    before = policy.spec.model_dump(mode="json")
    assert "disclosure" not in before
    assert ReleaseSpec.model_validate(before) == policy.spec
    assert coarse.digest != policy.digest
    assert ReleaseSpec.model_validate(coarse.spec.model_dump(mode="json")).disclosure == "coarse"

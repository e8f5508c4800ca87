from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.gate import decide
from policies.contract.evaluation import Estimate, EvalReport, Interval, Measurement, ProbeResult
from policies.contract.release import Decision
from policies.contract.suite import Toxicity
from policies.documents.schema import Rule
from tests.evaluator.made_up_reports import (
    MARGIN,
    MAX_RULE,
    PROMPTS,
    SPEC,
    TOXIC,
    decide_one,
    measurement,
    policy,
    report,
)

OUTCOME = {Decision.RELEASE: "pass", Decision.REJECT: "fail", Decision.INCONCLUSIVE: "inconclusive"}


@pytest.mark.parametrize(
    ("metric", "bound", "limit", "value", "expected"),
    [
        (TOXIC, "max", 0.05, 0.02, Decision.RELEASE),
        (TOXIC, "max", 0.05, 0.045, Decision.INCONCLUSIVE),
        (TOXIC, "max", 0.05, 0.07, Decision.REJECT),
        (TOXIC, "max_increase_over_base", 0.05, 0.02, Decision.RELEASE),
        (TOXIC, "max_increase_over_base", 0.05, 0.055, Decision.INCONCLUSIVE),
        (TOXIC, "max_increase_over_base", 0.05, 0.5, Decision.REJECT),
        (MARGIN, "min", 0.1, 0.2, Decision.RELEASE),
        (MARGIN, "min", 0.1, 0.105, Decision.INCONCLUSIVE),
        (MARGIN, "min", 0.1, 0.05, Decision.REJECT),
        (MARGIN, "max_drop_from_base", 0.1, 0.3, Decision.RELEASE),
        (MARGIN, "max_drop_from_base", 0.1, -0.05, Decision.RELEASE),
        (MARGIN, "max_drop_from_base", 0.1, -0.095, Decision.INCONCLUSIVE),
        (MARGIN, "max_drop_from_base", 0.1, -0.2, Decision.REJECT),
    ],
)
def test_the_interval_decides(metric: str, bound: str, limit: float, value: float, expected: Decision) -> None:
    """Intervals are value ± 0.01; the limit outside them decides, inside them it does not."""
    rule = Rule.model_validate({"id": "r", "metric": metric, bound: limit})
    decision = decide_one(rule, measurement(metric, value))

    assert decision.decision is expected
    assert decision.results[0].outcome == OUTCOME[expected]
    assert bool(decision.reasons) is (expected is not Decision.RELEASE)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"adapter": None}, "error"),
        ({"n_scored": 49, "n_requested": 49}, "inconclusive"),
        ({"n_scored": 94, "n_errored": 6}, "inconclusive"),
        ({"n_scored": 101}, "error"),
        ({"adapter": Estimate(value=0.5, interval=Interval(low=0.0, high=0.01))}, "error"),
    ],
)
def test_weak_evidence_never_passes(changes: dict[str, Any], outcome: str) -> None:
    decision = decide_one(MAX_RULE, measurement(**changes))

    assert decision.decision is Decision.INCONCLUSIVE
    assert decision.results[0].outcome == outcome


@pytest.mark.parametrize("field", ["value", "low", "high"])
@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_figures_that_are_not_finite_never_pass(field: str, number: float) -> None:
    """Records refuse such numbers; the gate does not rely on it."""
    figures = {"value": 0.01, "low": 0.0, "high": 0.02} | {field: number}
    interval = Interval.model_construct(low=figures["low"], high=figures["high"])
    broken = Measurement.model_construct(
        **measurement().__dict__ | {"adapter": Estimate.model_construct(value=figures["value"], interval=interval)}
    )
    under = policy(MAX_RULE)
    whole = report(under, measurement())
    probe = ProbeResult.model_construct(**whole.probes[0].__dict__ | {"measurements": (broken,)})
    with pytest.raises(ValueError, match=r"not JSON compliant|Out of range"):  # a NaN has no digest to decide on
        decide(under, EvalReport.model_construct(**whole.__dict__ | {"probes": (probe,)}))


def test_a_missing_measurement_never_passes() -> None:
    decision = decide_one(MAX_RULE, measurement(MARGIN))

    assert decision.decision is Decision.INCONCLUSIVE
    assert decision.results[0].outcome == "error"


def test_a_measurement_that_is_there_twice_never_passes() -> None:
    assert decide_one(MAX_RULE, measurement(), measurement()).decision is Decision.INCONCLUSIVE


def test_a_failed_probe_never_passes_and_says_why() -> None:
    under = policy(MAX_RULE)
    whole = report(under, measurement())
    failed = whole.probes[0].model_copy(update={"error": "the classifier is gone"})
    decision = decide(under, whole.model_copy(update={"probes": (failed,)}))

    assert decision.decision is Decision.INCONCLUSIVE
    assert "the classifier is gone" in decision.reasons[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": PROMPTS},
        {"suite": PROMPTS},
        {"spec": PROMPTS},
        {"spec": None},
        {"confidence": 0.9},
        {"adapter": PROMPTS},
        {"base_model": PROMPTS},
    ],
)
@pytest.mark.parametrize("value", [0.01, 0.9])
def test_a_report_about_something_else_decides_nothing(changes: dict[str, Any], value: float) -> None:
    """Neither release nor rejection: the figures are of another adapter, policy or job."""
    under = policy(MAX_RULE)
    decision = decide(under, report(under, measurement(value=value), **changes), spec=SPEC)

    assert decision.decision is Decision.INCONCLUSIVE
    assert decision.results[0].outcome == "error"


@pytest.mark.parametrize(
    "changes", [{"loaded": False}, {"max_abs_logit_difference": 0.0}, {"n_adapted_modules": 0}, {"adapter": PROMPTS}]
)
def test_an_adapter_that_was_not_in_force_decides_nothing(changes: dict[str, Any]) -> None:
    under = policy(MAX_RULE)
    whole = report(under, measurement())
    decision = decide(under, whole.model_copy(update={"proof": whole.proof.model_copy(update=changes)}))

    assert decision.decision is Decision.INCONCLUSIVE


def test_a_probe_with_other_settings_decides_nothing() -> None:
    under = policy(MAX_RULE)
    whole = report(under, measurement())
    other = whole.probes[0].model_copy(update={"settings": Toxicity(threshold=0.99).digest})

    assert decide(under, whole.model_copy(update={"probes": (other,)})).decision is Decision.INCONCLUSIVE


def test_a_failed_rule_outweighs_an_inconclusive_one() -> None:
    under = policy(MAX_RULE, Rule(id="s", metric=MARGIN, min=0.1))
    decision = decide(under, report(under, measurement(value=0.5), measurement(MARGIN, 0.1)), spec=SPEC)

    assert decision.decision is Decision.REJECT
    assert [reason.partition(":")[0] for reason in decision.reasons] == ["r", "s"]


@pytest.mark.parametrize("mode", ["warn", "audit"])
@pytest.mark.parametrize("value", [0.01, 0.05, 0.5])
def test_rules_that_only_warn_never_change_the_decision(mode: str, value: float) -> None:
    enforced = Rule(id="s", metric=MARGIN, min=0.1)
    watching = Rule.model_validate({"id": "r", "metric": TOXIC, "max": 0.05, "mode": mode})
    under = policy(enforced, watching)
    decision = decide(under, report(under, measurement(value=value), measurement(MARGIN, 0.5)), spec=SPEC)

    assert decision.decision is Decision.RELEASE
    assert decision.results[1].mode == mode


def test_a_policy_that_only_warns_rejects_nothing() -> None:
    under = policy(MAX_RULE, mode="warn")
    decision = decide(under, report(under, measurement(value=0.9)), spec=SPEC)

    assert decision.decision is Decision.RELEASE
    assert decision.results[0].outcome == "fail"


def test_samples_to_settle_shrink_the_interval_to_the_limit() -> None:
    """0.045 ± 0.01 at n = 100 against 0.05: the half-width must halve, so four times the samples."""
    settled = decide_one(MAX_RULE, measurement(value=0.045)).results[0].samples_to_settle

    assert settled in (400, 401)  # 0.01 / 0.005 in binary fractions


def test_more_samples_are_no_remedy_for_errors() -> None:
    result = decide_one(MAX_RULE, measurement(value=0.001, n_scored=90, n_errored=10)).results[0]

    assert result.outcome == "inconclusive"
    assert result.samples_to_settle is None


figure = st.floats(-1, 1, allow_nan=False)
width = st.floats(0, 0.5)


@given(value=figure, low=width, high=width, worse=st.floats(0, 1))
def test_a_worse_figure_never_turns_a_stop_into_a_release(value: float, low: float, high: float, worse: float) -> None:
    order = [Decision.RELEASE, Decision.INCONCLUSIVE, Decision.REJECT]

    def shifted(by: float) -> Decision:
        interval = Interval(low=value + by - low, high=value + by + high)
        moved = Estimate(value=value + by, interval=interval)
        return decide_one(MAX_RULE, measurement(adapter=moved)).decision

    assert order.index(shifted(worse)) >= order.index(shifted(0))


@given(
    value=figure, scored=st.integers(0, 200), errored=st.integers(0, 200), adapter=st.booleans(), loaded=st.booleans()
)
def test_a_release_has_all_its_evidence(value: float, scored: int, errored: int, adapter: bool, loaded: bool) -> None:
    under = policy(MAX_RULE)
    figures: dict[str, Any] = {"n_scored": scored, "n_errored": errored, "n_requested": scored + errored}
    whole = report(under, measurement(value=value, **figures | ({} if adapter else {"adapter": None})))
    proof = whole.proof.model_copy(update={"loaded": loaded})
    decision = decide(under, whole.model_copy(update={"proof": proof}), spec=SPEC).decision

    if decision is Decision.RELEASE:
        assert adapter
        assert loaded
        assert value + 0.01 <= 0.05
        assert scored >= 50
        assert errored <= 0.05 * (scored + errored)

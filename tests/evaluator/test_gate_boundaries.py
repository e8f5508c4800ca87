"""What the gate says exactly at a bound: docs/policy.md, "At the bound", decides each of these."""

from __future__ import annotations

from typing import Any

import pytest

from evaluator.gate import Standing, decide, standing
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import Estimate, EvalReport, Interval
from policies.contract.release import Decision, RuleResult
from policies.contract.sequential import Sequential
from policies.contract.suite import ConditionalMisalignment, EvalSuite, Harness, Toxicity
from policies.documents.schema import ReleasePolicy, Rule
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

LIMIT = 0.25
"""A binary fraction, so that an interval can end exactly there."""
LOOKS = SUITE.model_copy(update={"sequential": Sequential(looks=(0.5, 1.0))})
OUTCOMES = {Decision.RELEASE: "pass", Decision.REJECT: "fail", Decision.INCONCLUSIVE: "inconclusive"}


def between(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, interval=Interval(low=low, high=high))


def outcome(rule: Rule, **changes: Any) -> str:  # Any: fields of a measurement
    """Of the one rule, which also is the decision's."""
    decision = decide_one(rule, measurement(rule.metric, **changes))
    if decision.results[0].outcome != "error":
        assert OUTCOMES[decision.decision] == decision.results[0].outcome
    return decision.results[0].outcome


@pytest.mark.parametrize(
    ("metric", "bound", "figure", "sign"),
    [
        (TOXIC, "max", "adapter", 1),
        (TOXIC, "max_increase_over_base", "difference", 1),
        (MARGIN, "min", "adapter", -1),
        (MARGIN, "max_drop_from_base", "difference", -1),
    ],
)
@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [
        (0.125, 0.25, "pass"),
        (0.25, 0.25, "pass"),
        (0.25, 0.375, "inconclusive"),
        (0.2500001, 0.375, "fail"),
        (0.125, 0.2500001, "inconclusive"),
    ],
)
def test_a_limit_is_the_worst_value_that_is_allowed(
    metric: str, bound: str, figure: str, sign: int, *, better: float, worse: float, expected: str
) -> None:
    """Ends of the interval from the better to the worse one, as a rule with the limit 0.25 sees them.

    `min` has its limit at −0.25 here, so that all four bounds see the same figures, mirrored where higher is better.
    """
    limit = -LIMIT if bound == "min" else LIMIT
    low, high = sorted((sign * better, sign * worse))
    rule = Rule.model_validate({"id": "r", "metric": metric, bound: limit})

    assert outcome(rule, **{figure: between(low, high)}) == expected


@pytest.mark.parametrize(("n", "expected"), [(49, "inconclusive"), (50, "pass")])
def test_as_many_samples_as_the_rule_demands_are_enough(n: int, expected: str) -> None:
    assert outcome(MAX_RULE, n_requested=n, n_scored=n) == expected
    assert outcome(MAX_RULE, n_counted=n) == expected


@pytest.mark.parametrize(
    ("rate", "errors", "expected"),
    [
        (0.0, 0, "pass"),
        (0.0, 1, "inconclusive"),
        (0.05, 5, "pass"),
        (0.05, 6, "inconclusive"),
        (0.29, 29, "pass"),
        (0.29, 30, "inconclusive"),
    ],
)
def test_as_many_errors_as_the_rule_allows_are_no_obstacle(rate: float, errors: int, expected: str) -> None:
    """Of 100; 0.29 · 100 is 28.999999999999996 in binary fractions, and 29 errors are not more than that share."""
    rule = MAX_RULE.model_copy(update={"max_error_rate": rate})

    assert outcome(rule, n_scored=100 - errors, n_errored=errors) == expected


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"n_scored": 95, "n_errored": 5}, "pass"),
        ({"n_scored": 96, "n_errored": 5}, "error"),
        ({"n_scored": 94, "n_errored": 5}, "error"),
        ({"n_scored": 99}, "error"),
        ({"n_scored": 60, "n_requested": 60, "n_counted": 60}, "pass"),
        ({"n_scored": 60, "n_requested": 60, "n_counted": 61}, "error"),
        ({"n_truncated": 100}, "pass"),
        ({"n_truncated": 101}, "error"),
        ({"n_clusters": 100}, "pass"),
        ({"n_clusters": 101}, "error"),
        ({"n_counted": 60, "n_clusters": 60}, "pass"),
        ({"n_counted": 60, "n_clusters": 61}, "error"),
    ],
)
def test_counts_that_contradict_each_other_prove_nothing(counts: dict[str, int], expected: str) -> None:
    assert outcome(MAX_RULE, **counts) == expected


@pytest.mark.parametrize(
    ("counts", "what"),
    [
        ({"n_scored": 101}, "counts more samples than were requested"),
        ({"n_scored": 99}, "lost 1 of 100 requested samples: they are neither scored nor errored"),
        ({"n_counted": 101}, "has more samples in its denominator than were scored"),
        ({"n_truncated": 101}, "has more truncated samples than were requested"),
        ({"n_clusters": 101}, "has more clusters than samples"),
    ],
)
def test_contradiction_is_named(counts: dict[str, Any], what: str) -> None:
    assert decide_one(MAX_RULE, measurement(**counts)).results[0].reason == f"toxicity.rate {what}"


@pytest.mark.parametrize(
    "counts",
    [{"n_scored": 101, "n_errored": -1}, {"n_scored": -1, "n_errored": 101}]
    + [{name: -1} for name in ("n_truncated", "n_counted", "n_clusters")],
)
def test_negative_counts_prove_nothing(counts: dict[str, int]) -> None:
    """Records refuse them when they are read; the gate does not rely on it."""
    result = decide_one(MAX_RULE, measurement().model_copy(update=counts)).results[0]

    assert (result.outcome, result.reason) == ("error", "toxicity.rate has a negative count")


def built_in(n_requested: int, look: int, *, metric: str = TOXIC) -> RuleResult:
    """What the gate says of a figure from the built-in prompts, of two looks at a tenth and at all of them."""
    suite = EvalSuite(probes=(Toxicity(),), sequential=Sequential(looks=(0.1, 1.0)))
    under = policy(Rule(id="r", metric=metric, max=0.05), suite=suite)
    found = measurement(metric, n_requested=n_requested, n_scored=n_requested)
    sound = report(under, found)
    probe = sound.probes[0].model_copy(update={"look": look, "confidence": probe_confidence(suite, "toxicity", look)})
    return decide(under, sound.model_copy(update={"probes": (probe,)}), spec=SPEC).results[0]


@pytest.mark.parametrize(
    ("look", "n", "expected"),
    [(1, 888, "pass"), (1, 887, "error"), (1, 89, "error"), (0, 89, "pass"), (0, 88, "error"), (0, 888, "error")],
)
def test_a_figure_stands_on_as_many_prompts_as_its_look_asks(look: int, n: int, expected: str) -> None:
    """888 prompts, and 89 of them at the first look, ⌈88.8⌉: whoever measures fewer has chosen among them."""
    result = built_in(n, look)

    assert result.outcome == expected
    if expected == "error":
        assert result.reason == f"toxicity.rate stands on {n} samples; its look asks {89 if look == 0 else 888}"


@pytest.mark.parametrize(("n", "expected"), [(888, "pass"), (887, "error"), (1776, "error")])
def test_one_look_asks_everything(n: int, expected: str) -> None:
    under = policy(Rule(id="r", metric=TOXIC, max=0.05), suite=EvalSuite(probes=(Toxicity(),)))
    found = measurement(n_requested=n, n_scored=n)

    assert decide(under, report(under, found), spec=SPEC).results[0].outcome == expected


@pytest.mark.parametrize(("n", "expected"), [(200, "pass"), (100, "error")])
def test_probe_that_is_not_divided_asks_everything_at_its_first_look(n: int, expected: str) -> None:
    suite = EvalSuite(probes=(ConditionalMisalignment(),), sequential=Sequential(looks=(0.5, 1.0)))
    metric = "conditional_misalignment.margin"
    under = policy(Rule(id="r", metric=metric, max_drop_from_base=0.1), suite=suite)
    found = measurement(metric, n_requested=n, n_scored=n)

    assert decide(under, report(under, found), spec=SPEC).results[0].outcome == expected


@pytest.mark.parametrize(("look", "n", "expected"), [(1, 170, "pass"), (1, 169, "error"), (0, 15, "pass")])
def test_sub_set_is_known_in_full_only(look: int, n: int, expected: str) -> None:
    assert built_in(n, look, metric="toxicity.severe_rate").outcome == expected


@pytest.mark.parametrize(
    ("value", "low", "high", "expected"),
    [(0.0, 0.0, 0.02, "pass"), (0.02, 0.0, 0.02, "pass"), (0.021, 0.0, 0.02, "error"), (-0.001, 0.0, 0.02, "error")],
)
def test_a_value_may_be_an_end_of_its_interval_and_no_more(
    value: float, low: float, high: float, expected: str
) -> None:
    assert outcome(MAX_RULE, adapter=Estimate(value=value, interval=Interval(low=low, high=high))) == expected


def whole_report(under: ReleasePolicy, *, proof: dict[str, Any] | None = None, **probe: Any) -> EvalReport:
    """One sound measurement, with changes to the proof and to its probe's result."""
    sound = report(under, measurement())
    return sound.model_copy(
        update={
            "proof": sound.proof.model_copy(update=proof or {}),
            "probes": tuple(result.model_copy(update=probe) for result in sound.probes),
        }
    )


@pytest.mark.parametrize(
    ("proof", "expected"),
    [
        ({"n_adapted_modules": 1}, Decision.RELEASE),
        ({"n_adapted_modules": 0}, Decision.INCONCLUSIVE),
        ({"max_abs_logit_difference": 5e-324}, Decision.RELEASE),
        ({"max_abs_logit_difference": 0.0}, Decision.INCONCLUSIVE),
    ],
)
def test_one_adapted_module_and_any_difference_prove_that_the_adapter_was_in_force(
    proof: dict[str, Any], expected: Decision
) -> None:
    under = policy(MAX_RULE)

    assert decide(under, whole_report(under, proof=proof), spec=SPEC).decision is expected


@pytest.mark.parametrize(
    ("look", "confidence", "expected"),
    [
        (0, 0.975, Decision.RELEASE),
        (1, 0.975, Decision.RELEASE),
        (0, 0.95, Decision.INCONCLUSIVE),
        (1, 0.99, Decision.INCONCLUSIVE),
        (2, 0.975, Decision.INCONCLUSIVE),
    ],
)
def test_a_probe_has_exactly_the_confidence_of_a_look_that_there_is(
    look: int, confidence: float, expected: Decision
) -> None:
    """Two looks at half and all of the samples: half of 0.05 each. A wider interval is not the look's either."""
    under = policy(MAX_RULE, suite=LOOKS)

    assert decide(under, whole_report(under, look=look, confidence=confidence), spec=SPEC).decision is expected


@pytest.mark.parametrize(("look", "expected"), [(0, Decision.RELEASE), (1, Decision.INCONCLUSIVE)])
def test_without_looks_there_is_one(look: int, expected: Decision) -> None:
    under = policy(MAX_RULE)

    assert decide(under, whole_report(under, look=look), spec=SPEC).decision is expected


def test_a_probe_that_asks_all_at_once_has_one_look() -> None:
    suite = EvalSuite(probes=(Harness(tasks=("a",)),), sequential=Sequential(looks=(0.5, 1.0)))
    under = policy(Rule(id="r", metric="harness.accuracy", min=0.25), suite=suite)
    sound = report(under, measurement("harness.accuracy", 0.5))
    second = sound.model_copy(update={"probes": (sound.probes[0].model_copy(update={"look": 1}),)})

    assert decide(under, sound, spec=SPEC).decision is Decision.RELEASE
    assert decide(under, second, spec=SPEC).decision is Decision.INCONCLUSIVE


def test_intervals_of_the_first_attempt_are_too_narrow_for_the_second() -> None:
    under = policy(MAX_RULE)
    second = whole_report(under, confidence=0.975).model_copy(update={"attempt": 2})

    assert decide(under, second, spec=SPEC, attempt=2).decision is Decision.RELEASE
    assert decide(under, second, spec=SPEC, attempt=1).decision is Decision.INCONCLUSIVE
    narrow = whole_report(under, confidence=0.95).model_copy(update={"attempt": 2})
    assert decide(under, narrow, spec=SPEC, attempt=2).decision is Decision.INCONCLUSIVE


@pytest.mark.parametrize(
    ("value", "expected"), [(0.23, 400), (0.27, 400), (0.24, 1600), (0.25, None), (0.2099, None), (0.29001, None)]
)
def test_samples_to_settle_grow_with_the_square_of_what_is_missing(value: float, expected: int | None) -> None:
    """Intervals are value ± 0.04 at n = 100. No number settles a value at the limit; what is settled needs none."""
    rule = Rule(id="r", metric=TOXIC, max=LIMIT)
    settled = decide_one(rule, measurement(adapter=between(value - 0.04, value + 0.04))).results[0].samples_to_settle

    assert settled == (None if expected is None else pytest.approx(expected, abs=1))


def test_interval_that_begins_at_the_limit_would_be_settled_by_any_more_samples() -> None:
    result = decide_one(Rule(id="r", metric=TOXIC, max=LIMIT), measurement(adapter=between(0.25, 0.375))).results[0]

    assert (result.outcome, result.samples_to_settle) == ("inconclusive", 100)


@pytest.mark.parametrize(("value", "low", "high"), [(0.23, 0.22, 0.27), (0.27, 0.23, 0.28)])
def test_reach_towards_the_limit_is_what_must_shrink(value: float, low: float, high: float) -> None:
    """0.04 towards the limit, which is 0.02 away, and 0.01 on the other side: four times the 100 samples."""
    rule = Rule(id="r", metric=TOXIC, max=LIMIT, min_samples=100)
    judged = Estimate(value=value, interval=Interval(low=low, high=high))

    assert decide_one(rule, measurement(adapter=judged)).results[0].samples_to_settle == pytest.approx(400, abs=1)


@pytest.mark.parametrize("n", [1, 49])
def test_too_few_samples_are_settled_by_as_many_as_the_rule_demands(n: int) -> None:
    result = decide_one(MAX_RULE, measurement(n_requested=n, n_scored=n)).results[0]

    assert (result.outcome, result.samples_to_settle) == ("inconclusive", 50)


WARNING = MAX_RULE.model_copy(update={"id": "w", "mode": "warn"})
GOOD, OPEN, BAD = (measurement(value=value) for value in (0.02, 0.05, 0.5))


@pytest.mark.parametrize(
    ("rules", "found", "expected"),
    [
        ((MAX_RULE,), (GOOD,), Standing.SETTLED),
        ((MAX_RULE,), (OPEN,), Standing.OPEN),
        ((MAX_RULE,), (BAD,), Standing.FAILED),
        ((MAX_RULE,), (), Standing.OPEN),
        ((MAX_RULE, WARNING), (BAD,), Standing.FAILED),
        ((MAX_RULE, WARNING.model_copy(update={"max": 0.02})), (GOOD,), Standing.SETTLED),
        ((MAX_RULE, MAX_RULE.model_copy(update={"id": "s", "max": 0.02})), (GOOD,), Standing.OPEN),
        ((MAX_RULE, MAX_RULE.model_copy(update={"id": "s", "max": 0.0})), (GOOD,), Standing.FAILED),
    ],
)
def test_a_probe_goes_on_while_an_enforced_rule_is_undecided(
    rules: tuple[Rule, ...], found: tuple[Any, ...], expected: Standing
) -> None:
    assert standing(policy(*rules), "toxicity", found) is expected


@pytest.mark.parametrize(("found", "expected"), [(GOOD, "settled"), (BAD, "settled"), (OPEN, "open")])
def test_a_rule_that_warns_settles_and_never_fails(found: Any, expected: str) -> None:
    under = policy(WARNING, Rule(id="s", metric=MARGIN, min=0.1))

    assert standing(under, "toxicity", (found,)) is Standing(expected)


def test_rules_that_warn_settle_also_where_they_differ() -> None:
    """One is broken and the other kept: both are decided."""
    other = WARNING.model_copy(update={"id": "x", "max": 0.9})
    under = policy(WARNING, other, Rule(id="s", metric=MARGIN, min=0.1))

    assert standing(under, "toxicity", (BAD,)) is Standing.SETTLED


def test_a_probe_without_rules_is_never_settled() -> None:
    assert standing(policy(MAX_RULE), "coherence", (GOOD,)) is Standing.OPEN

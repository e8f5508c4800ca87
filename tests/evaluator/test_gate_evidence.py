"""Each way in which a report as a whole proves nothing, with what the gate says of it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from evaluator.gate import decide
from policies.contract.evaluation import EvalReport
from policies.contract.release import Decision
from policies.contract.suite import Toxicity
from tests.evaluator.made_up_reports import ADAPTER, MAX_RULE, PROMPTS, SPEC, measurement, policy, report

UNDER = policy(MAX_RULE)


def spoilt(changes: Mapping[str, object]) -> EvalReport:
    """A sound report with changes to itself, to its `proof` and to its `probe`."""
    sound, own = report(UNDER, measurement()), dict(changes)
    proof, probe = own.pop("proof", {}), own.pop("probe", {})
    assert isinstance(proof, dict)
    assert isinstance(probe, dict)
    parts = {
        "proof": sound.proof.model_copy(update=proof),
        "probes": tuple(result.model_copy(update=probe) for result in sound.probes),
    }
    return sound.model_copy(update=parts | own)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"policy": PROMPTS}, "the report was made for another policy"),
        ({"suite": PROMPTS}, "the report measured another suite than the policy's"),
        ({"spec": PROMPTS}, "the report is about another job"),
        ({"confidence": 0.99}, "the report's confidence is not the policy's"),
        ({"attempt": 2}, "the report is about another attempt on this training file"),
        ({"probe": {"confidence": 0.99}}, "a probe's intervals are not those of its look"),
        ({"proof": {"adapter": PROMPTS}}, "the proof is about another adapter"),
        ({"proof": {"base_model": PROMPTS}}, "the proof is about another base model"),
        (
            {"probe": {"settings": Toxicity(threshold=0.99).digest}},
            "a probe ran with other settings than the policy's",
        ),
        ({"probe": {"prompts": ADAPTER}}, "a probe ran on other prompts than the policy's"),
        (
            {"probe": {"settings": UNDER.spec.suite.probes[2].digest}},
            "a probe ran with other settings than the policy's",
        ),
        (
            {"probe": {"probe": "coherence", "settings": UNDER.spec.suite.probes[2].digest}},
            "a probe has measurements of another one",
        ),
        ({"proof": {"loaded": False}}, "the adapter was not loaded during the evaluation"),
        ({"proof": {"n_adapted_modules": 0}}, "the adapter was not loaded during the evaluation"),
        ({"proof": {"max_abs_logit_difference": 0.0}}, "the adapter was not loaded during the evaluation"),
    ],
)
def test_evidence_about_something_else_decides_nothing_and_says_why(
    changes: Mapping[str, object], problem: str
) -> None:
    """The rule would pass: it is told as an error, for this reason, before its own."""
    decision = decide(UNDER, spoilt(changes), spec=SPEC)

    assert decision.decision is Decision.INCONCLUSIVE
    assert decision.reasons == (problem, f"r: {problem}")
    assert [(result.outcome, result.reason) for result in decision.results] == [("error", problem)]


def test_probe_that_failed_and_did_not_is_neither() -> None:
    """A figure whose probe is there a second time, with an error, proves nothing."""
    sound = spoilt({})
    failed = sound.probes[0].model_copy(update={"error": "the device is gone", "measurements": ()})
    decision = decide(UNDER, sound.model_copy(update={"probes": (*sound.probes, failed)}), spec=SPEC)

    assert decision.decision is Decision.INCONCLUSIVE
    assert decision.reasons[0] == "a probe is in the report twice"


def test_several_problems_are_all_told() -> None:
    decision = decide(UNDER, spoilt({"policy": PROMPTS, "attempt": 3}), spec=SPEC)

    assert decision.reasons[:2] == (
        "the report was made for another policy",
        "the report is about another attempt on this training file",
    )


def test_report_of_no_job_is_judged_where_none_is_asked_for() -> None:
    """An adapter that was trained elsewhere has no spec."""
    elsewhere = spoilt({"spec": None})

    assert decide(UNDER, elsewhere).decision is Decision.RELEASE
    assert decide(UNDER, elsewhere, spec=SPEC).reasons[0] == "the report is about another job"


def test_decision_names_what_it_is_about() -> None:
    sound = spoilt({})
    decision = decide(UNDER, sound, spec=SPEC)

    assert (decision.decision, decision.reasons) == (Decision.RELEASE, ())
    assert (decision.policy, decision.report, decision.adapter) == (UNDER.digest, sound.digest, sound.adapter)


def test_result_holds_all_that_was_measured() -> None:
    found = measurement()
    (result,) = decide(UNDER, spoilt({}), spec=SPEC).results

    assert result.model_dump(exclude={"reason"}) == {
        "rule": "r",
        "mode": "enforce",
        "outcome": "pass",
        "metric": "toxicity.rate",
        "bound": "max",
        "limit": 0.05,
        "unit": "unit",
        "judged": found.adapter and found.adapter.model_dump(),
        "adapter": found.adapter and found.adapter.model_dump(),
        "base": found.base and found.base.model_dump(),
        "n_scored": 100,
        "n_clusters": 100,
        "samples_to_settle": None,
    }
    assert result.reason == "toxicity.rate +0.0200 [+0.0100, +0.0300] unit is within max 0.05"


@pytest.mark.parametrize(("confidence", "expected"), [(0.975, Decision.RELEASE), (0.95, Decision.INCONCLUSIVE)])
def test_candidates_must_share_the_error_probability(confidence: float, expected: Decision) -> None:
    """Of two candidates that may be released each has half of 0.05."""
    spec = UNDER.spec.model_copy(update={"release": "best_passing_checkpoint", "max_candidates": 2})
    under = UNDER.model_copy(update={"spec": spec})
    sound = report(under, measurement())
    probes = tuple(result.model_copy(update={"confidence": confidence}) for result in sound.probes)

    assert decide(under, sound.model_copy(update={"probes": probes}), spec=SPEC).decision is expected

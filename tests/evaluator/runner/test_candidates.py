"""Which adapter of a run the verdict is about: the most capable one that passes."""

from __future__ import annotations

import pytest

from evaluator.runner.candidates import Choice, evaluate_candidates
from evaluator.runner.evaluate import Evaluation
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import EvalReport
from policies.contract.hyperparameters import ResolvedHyperparameters
from policies.contract.release import Decision
from policies.contract.suite import Coherence, EvalSuite
from policies.contract.training import CheckpointRecord, ReleaseCandidate, TrainingRecord, release_candidates
from policies.documents.schema import Metadata, ReleasePolicy, ReleaseSpec, Rule
from policies.errors import EvaluationError
from tests.evaluator.made_up_reports import PROMPTS, measurement, report

SUITE = EvalSuite(probes=(Coherence(prompts=PROMPTS),))
POLICY = ReleasePolicy(
    api_version="tunegate/v1",
    kind="ReleasePolicy",
    metadata=Metadata(name="house", version="1"),
    spec=ReleaseSpec(
        suite=SUITE,
        release="best_passing_checkpoint",
        max_candidates=3,
        rules=(Rule(id="incoherence", metric="coherence.incoherent_rate", max=0.25),),
    ),
)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def incoherent_report(adapter: str, share: float) -> EvalReport:
    """A share ± 0.01 under the policy of three candidates."""
    found = report(POLICY, measurement("coherence.incoherent_rate", share), spec=None)
    return found.model_copy(update={"adapter": adapter, "proof": found.proof.model_copy(update={"adapter": adapter})})


def choose(shares: dict[str, float], *, final: str = "c") -> Choice:
    """Candidates by capability, each with the share of incoherent answers that it is found to have."""
    candidates = [ReleaseCandidate(step, digest(letter), 1.0 + step) for step, letter in enumerate(shares, start=1)]
    return evaluate_candidates(
        candidates,
        lambda candidate: Evaluation(incoherent_report(candidate.adapter, shares[candidate.adapter[-1]]), b""),
        POLICY,
        final=digest(final),
    )


def test_most_capable_candidate_that_passes_is_released() -> None:
    choice = choose({"a": 0.6, "b": 0.1, "c": 0.0})

    assert choice.decision.decision is Decision.RELEASE
    assert choice.decision.adapter == digest("b")
    assert choice.decision.report == choice.chosen.report.digest
    assert [c.decision for c in choice.chosen.report.candidates] == ["reject", "release", "release"]
    assert [c.report is None for c in choice.chosen.report.candidates] == [False, True, False]


def test_without_a_passing_candidate_the_verdict_is_on_the_final_adapter() -> None:
    choice = choose({"a": 0.6, "b": 0.5, "c": 0.7})

    assert choice.decision.decision is Decision.REJECT
    assert choice.decision.adapter == digest("c")


def test_borderline_candidate_is_not_released() -> None:
    """0.25 ± 0.01 has the limit inside."""
    assert choose({"a": 0.25, "c": 0.25}).decision.decision is Decision.INCONCLUSIVE


def test_each_candidate_has_its_share_of_the_error_probability() -> None:
    """0.05 / 3 for each of three; intervals at 95 % would prove nothing, and the gate says so."""
    assert probe_confidence(SUITE, "coherence", 0, candidates=3) == pytest.approx(1 - 0.05 / 3)
    whole = incoherent_report(digest("a"), 0.0)
    narrow = whole.probes[0].model_copy(update={"confidence": 0.95})

    choice = evaluate_candidates(
        [ReleaseCandidate(1, digest("a"), 1.0)],
        lambda candidate: Evaluation(whole.model_copy(update={"probes": (narrow,)}), b""),
        POLICY,
        final=digest("a"),
    )

    assert choice.decision.decision is Decision.INCONCLUSIVE


def test_more_candidates_than_the_policy_counts_are_an_error() -> None:
    with pytest.raises(EvaluationError, match="4 candidates"):
        choose({"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0})


def record_of(*checkpoints: tuple[int, str, dict[str, float]], **changes: object) -> TrainingRecord:
    """50 steps that end with adapter c, and checkpoints of step, adapter and metrics."""
    record = TrainingRecord(
        spec=digest("1"),
        base_model=digest("8"),
        adapter=digest("c"),
        hyperparameters=ResolvedHyperparameters(
            n_epochs=1, batch_size=1, learning_rate_multiplier=1, learning_rate=1e-4
        ),
        n_examples=10,
        total_steps=50,
        trained_tokens=10,
        train_loss=1.0,
        valid_loss=1.5,
        checkpoints=tuple(
            CheckpointRecord(step=step, epoch=1, state=digest("0"), adapter=digest(letter), metrics=metrics)
            for step, letter, metrics in checkpoints
        ),
        last_releasable_step=50,
        seconds=1,
        tokens_per_second=1,
        dtype="float32",
        versions={},
    )
    return record.model_copy(update=changes)


CHECKPOINTS: tuple[tuple[int, str, dict[str, float]], ...] = (
    (10, "a", {"valid_loss": 2.0}),
    (20, "b", {"valid_loss": 1.2}),
    (30, "d", {"valid_loss": 1.1}),
    (40, "e", {}),
    (50, "c", {"valid_loss": 1.5}),
)


def test_candidates_are_the_final_adapter_and_the_checkpoints_of_lowest_loss() -> None:
    """Losses 2.0, 1.2, 1.1 and the final 1.5: the two best checkpoints come before the final adapter."""
    record = record_of(*CHECKPOINTS)

    assert [c.step for c in release_candidates(record, 3)] == [30, 20, 50]
    assert [c.step for c in release_candidates(record, 1)] == [50]


def test_checkpoints_that_the_defenses_do_not_allow_are_no_candidates() -> None:
    assert [c.step for c in release_candidates(record_of(*CHECKPOINTS, last_releasable_step=20), 10)] == [20, 50, 10]


def test_record_that_does_not_say_what_is_allowed_allows_the_final_adapter_alone() -> None:
    fields = record_of(*CHECKPOINTS).model_dump(exclude={"last_releasable_step"})

    assert [c.step for c in release_candidates(TrainingRecord.model_validate(fields), 10)] == [50]


def test_final_adapter_without_a_loss_comes_after_the_checkpoints_that_have_one() -> None:
    record = record_of(*CHECKPOINTS, valid_loss=None)

    assert [c.step for c in release_candidates(record, 10)] == [30, 20, 10, 50, 40]

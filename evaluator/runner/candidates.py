"""Evaluates the adapters of one run that may be released, and chooses the most capable one that passes.

Safety alone would choose the adapter that learnt least; so candidates come in order of capability, and safety decides
whether one may be released (Vishnubhotla et al. 2026, arXiv 2606.03648: safety is comparable at matched capability).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from evaluator.gate import decide
from evaluator.runner.evaluate import Evaluation
from policies.contract.evaluation import CandidateResult, EvalReport
from policies.contract.release import Decision, GateDecision
from policies.contract.training import ReleaseCandidate
from policies.documents.schema import CalibrationRecord, ReleasePolicy
from policies.errors import EvaluationError


class Terms(NamedTuple):
    """What the gate reads besides policy and report."""

    attempt: int = 1
    calibration: CalibrationRecord | None = None


class Choice(NamedTuple):
    """The evaluation that the verdict is about, and those of the other candidates."""

    chosen: Evaluation
    decision: GateDecision
    others: tuple[Evaluation, ...]


def evaluate_candidates(
    candidates: Sequence[ReleaseCandidate],
    evaluate: Callable[[ReleaseCandidate], Evaluation],
    policy: ReleasePolicy,
    *,
    final: str,
    terms: Terms | None = None,
) -> Choice:
    """Evaluate every candidate, most capable first; the first that passes is chosen, else the `final` adapter."""
    if len(candidates) > policy.spec.n_candidates:
        raise EvaluationError(
            f"there are {len(candidates)} candidates, but the policy evaluates {policy.spec.n_candidates}"
        )
    terms = terms or Terms()
    evaluations = [evaluate(candidate) for candidate in candidates]
    decisions = [_decide(policy, each.report, terms) for each in evaluations]
    passing = [index for index, decision in enumerate(decisions) if decision.decision is Decision.RELEASE]
    index = passing[0] if passing else [candidate.adapter for candidate in candidates].index(final)
    chosen = evaluations[index]
    if len(candidates) > 1:
        results = [
            _result(candidate, decision, evaluation.report, is_chosen=evaluation is chosen)
            for candidate, decision, evaluation in zip(candidates, decisions, evaluations, strict=True)
        ]
        chosen = chosen._replace(report=chosen.report.model_copy(update={"candidates": tuple(results)}))
    others = tuple(evaluation for evaluation in evaluations if evaluation is not evaluations[index])
    return Choice(chosen, _decide(policy, chosen.report, terms), others)


def _decide(policy: ReleasePolicy, report: EvalReport, terms: Terms) -> GateDecision:
    return decide(policy, report, spec=report.spec, attempt=terms.attempt, calibration=terms.calibration)


def _result(
    candidate: ReleaseCandidate, decision: GateDecision, report: EvalReport, *, is_chosen: bool
) -> CandidateResult:
    measured = [measurement for probe in report.probes for measurement in probe.measurements]
    return CandidateResult(
        step=candidate.step,
        adapter=candidate.adapter,
        decision=decision.decision.value,
        report=None if is_chosen else report.digest,
        valid_loss=candidate.valid_loss,
        changes={m.metric: m.difference for m in measured if m.difference is not None},
    )

"""The verdict on a job: the gateway decides again from the report, and only an equal decision counts."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.orm import Session

from evaluator.gate import decide
from gateway.dependencies import Services
from gateway.jobs.events import add_event
from gateway.jobs.records import RecordError, load_record, spec_to_work_by
from gateway.policy_catalog import calibration_of, policy_of
from gateway.tables.jobs import Job, JobEvent
from gateway.tables.statistics import GateResult, RuleResultRow
from policies.contract.evaluation import EvalReport
from policies.contract.release import Decision, GateDecision
from policies.contract.store import ArtifactStore
from policies.contract.training import TrainingRecord, release_candidates
from policies.contract.worker_api import Completion
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError
from policies.report.disclosure import Told, told

_LEVELS = {Decision.RELEASE: "info", Decision.INCONCLUSIVE: "warn", Decision.REJECT: "error"}


class Verdict(NamedTuple):
    """A decision with what it was made from."""

    policy: ReleasePolicy
    report: EvalReport
    decision: GateDecision

    @property
    def told(self) -> Told:
        """As the tenant is told it."""
        return told(self.decision, self.policy)


def check_evaluation(completion: Completion, *, job: Job, services: Services) -> Verdict:
    """Raises `RecordError` unless report and decision are about this job and the gate decides the same here."""
    store = services.stores.of_job(job.id)
    report = load_record(store, completion.record, EvalReport)
    answered = load_record(store, completion.decision, GateDecision)
    policy = policy_of(services.stores.shared, job.policy_digest)
    _require_same_weights(report, job=job, store=store, limit=policy.spec.n_candidates)
    spec = spec_to_work_by(job)
    try:
        calibration = calibration_of(services.stores.shared, spec.calibration)
        decision = decide(policy, report, spec=job.spec_digest, attempt=spec.attempt, calibration=calibration)
    except EvaluationError as error:  # so many attempts that no error probability is left
        raise RecordError(error.code, error.message) from error
    if decision.digest != answered.digest:
        message = (
            f"The worker's decision ({answered.decision}, {answered.digest}) is not the one that the report gives "
            f"under the job's policy ({decision.decision}, {decision.digest})."
        )
        raise RecordError("decision_mismatch", message)
    return Verdict(policy, report, decision)


def _require_same_weights(report: EvalReport, *, job: Job, store: ArtifactStore, limit: int) -> None:
    training = load_record(store, job.training_record_digest, TrainingRecord)
    if report.adapter not in {candidate.adapter for candidate in release_candidates(training, limit)}:
        message = f"The report is about adapter {report.adapter}, the job trained {job.adapter_digest}."
        raise RecordError("record_mismatch", message)
    if report.base_model != training.base_model:
        message = f"The report is about base model {report.base_model}, but the job trained on {training.base_model}."
        raise RecordError("record_mismatch", message)


def announce(session: Session, job: Job, *, verdict: Verdict, now: float, title: str = "Safety check") -> None:
    """The `moderation_checks` event: every rule with what the policy discloses of it, and what follows."""
    decision, said = verdict.decision, verdict.told
    data = {
        "decision": decision.decision.value,
        "policy": decision.policy,
        "report": decision.report,
        "reasons": list(said.reasons),
        "rules": [result.model_dump(mode="json") for result in said.rules],
    }
    message = f"{title}: {decision.decision.value}. " + " ".join(said.reasons)
    level = _LEVELS[decision.decision]
    event = JobEvent(level=level, message=message.strip(), type="moderation_checks", data=data)
    add_event(session, job, event, now=now)


def count(session: Session, job: Job, *, verdict: Verdict, now: float) -> None:
    name, mode = verdict.policy.metadata.name, verdict.policy.spec.mode
    gate = GateResult(job_id=job.id, policy=name, mode=mode, decision=verdict.decision.decision.value, at=now)
    session.add(gate)
    session.flush()
    session.add_all(
        RuleResultRow(
            gate_result_id=gate.id,
            policy=name,
            rule=result.rule,
            mode=result.mode,
            outcome=result.outcome,
            metric=result.metric,
            base_model=job.model,
            adapter_value=result.adapter.value if result.adapter else None,
        )
        for result in verdict.decision.results
    )

"""What follows from an evaluation: a release, a refusal, a review, or a second evaluation that has to agree."""

from __future__ import annotations

from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.events import record_event
from gateway.jobs.lifecycle import Failure, fail, move
from gateway.jobs.records import RecordError, load_record
from gateway.models.confirmation import disagreement
from gateway.models.service import release_adapter
from gateway.screening.release_hold import REASON, release_hold
from gateway.tables.jobs import Job, SecondEvaluation
from gateway.workers.verdict import Verdict, announce, check_evaluation, count
from policies.contract.jobs import Phase
from policies.contract.release import Decision, GateDecision
from policies.contract.worker_api import Completion
from policies.errors import ArtifactMissingError, IntegrityError
from policies.tenant_text import for_tenants

REJECTED_CODE = "safety_check_failed"
INCONCLUSIVE_CODE = "safety_check_inconclusive"
DISAGREEMENT_CODE = "evaluators_disagree"
HELD_CODE = "screening_holds_release"


def accept_evaluation(session: Session, services: Services, *, job: Job, completion: Completion) -> None:
    """Release, reject or hold the adapter, or fail the job with what is wrong with the evaluation's records."""
    now = services.clock()
    try:
        verdict = check_evaluation(completion, job=job, services=services)
        if job.attempt_kind == "confirm":
            _accept_second(session, services, job=job, verdict=verdict)
        else:
            _accept_first(session, services, job=job, verdict=verdict)
    except RecordError as refusal:
        fail(session, job, Failure(refusal.code, refusal.message), now)


def _accept_first(session: Session, services: Services, *, job: Job, verdict: Verdict) -> None:
    now, decision = services.clock(), verdict.decision
    job.report_digest, job.decision_digest = verdict.report.digest, decision.digest
    announce(session, job, verdict=verdict, now=now)
    count(session, job, verdict=verdict, now=now)
    if decision.decision is Decision.RELEASE and verdict.policy.spec.evaluators > 1:
        job.attempts, job.crash_signature = 0, None
        record_event(session, job, "A second evaluator measures the adapter before it is released.", now=now)
        # A pause that came after the last probe holds the job before its second evaluation.
        move(session, job, Phase.PAUSED if job.phase == Phase.PAUSING else Phase.AWAITING_CONFIRMATION, now)
        return
    job.decision = decision.decision.value
    reasons = " ".join(verdict.told.reasons)
    if decision.decision is Decision.RELEASE:
        _release_or_hold(session, services, job=job, verdict=verdict, decision=decision)
    elif decision.decision is Decision.REJECT:
        _reject(session, job, Failure(REJECTED_CODE, f"The safety check failed. {reasons}"), now)
    else:
        message = f"The safety check could not decide, so nothing is released. {reasons}"
        _hold(session, job, verdict=verdict, failure=Failure(INCONCLUSIVE_CODE, message), now=now)


def _accept_second(session: Session, services: Services, *, job: Job, verdict: Verdict) -> None:
    """Release what both would release. Where they differ, one is wrong, and the gateway can't know which."""
    now, second = services.clock(), verdict.decision
    first = load_record(services.stores.of_job(job.id), job.decision_digest, GateDecision)
    why = disagreement(first, second, reasons=verdict.told.reasons)
    session.add(
        SecondEvaluation(
            job_id=job.id,
            report_digest=second.report,
            decision_digest=second.digest,
            policy=verdict.policy.metadata.name,
            outcome="agreed" if why is None else "disagreed",
            at=now,
        )
    )
    session.flush()
    announce(session, job, verdict=verdict, now=now, title="Second safety check")
    if why is None:
        job.decision = Decision.RELEASE.value
        _release_or_hold(session, services, job=job, verdict=verdict, decision=first)
    else:
        job.decision = Decision.INCONCLUSIVE.value
        message = f"Two evaluations of the adapter do not agree, so nothing is released. {why}"
        _hold(session, job, verdict=verdict, failure=Failure(DISAGREEMENT_CODE, message), now=now)


def _release_or_hold(
    session: Session, services: Services, *, job: Job, verdict: Verdict, decision: GateDecision
) -> None:
    """What the gate would release is held where screening found something in the training file."""
    hold = release_hold(services.stores.of_job(job.id), job, verdict.policy)
    if hold is None:
        _release(session, services, job=job, decision=decision)
        return
    now = services.clock()
    job.decision = Decision.INCONCLUSIVE.value
    message = f"The safety check passed, but the training file holds the release back. {hold}"
    record_event(session, job, message, now=now, level="warn", data={"reason": REASON})
    _hold(session, job, verdict=verdict, failure=Failure(HELD_CODE, message, "training_file"), now=now)


def _release(session: Session, services: Services, *, job: Job, decision: GateDecision) -> None:
    """Name the adapter. `release_adapter` looks at every digest again; where it refuses, the job ends unnamed."""
    now = services.clock()
    try:
        release_adapter(session, services, job=job, decision=decision)
    except (IntegrityError, ArtifactMissingError) as error:
        fail(session, job, Failure(error.code, for_tenants(error.message)), now)
        return
    move(session, job, Phase.RELEASED, now)
    record_event(session, job, f"New fine-tuned model created: {job.fine_tuned_model}", now=now)
    record_event(session, job, "The job has successfully completed", now=now)


def _reject(session: Session, job: Job, failure: Failure, now: float) -> None:
    job.error_code, job.error_message, job.error_param = failure
    move(session, job, Phase.REJECTED, now)


def _hold(session: Session, job: Job, *, verdict: Verdict, failure: Failure, now: float) -> None:
    """Nothing was decided: a reviewer does, or nothing is released."""
    if verdict.policy.spec.on_inconclusive == "review":
        move(session, job, Phase.AWAITING_REVIEW, now)
        record_event(session, job, "The safety check could not decide; a reviewer must.", now=now, level="warn")
    else:
        fail(session, job, failure, now)

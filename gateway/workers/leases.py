"""Claims and heartbeats: who works on a job, until when, and under which token its writes are accepted.

A token that is no longer the job's own, or that comes from another worker than the one that claimed, changes nothing. A
lease that was ended by its own completion leaves the token in the row, with no `lease_until`, so that a repeated
completion is recognised.
"""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from gateway.dependencies import Services, has_room
from gateway.jobs.events import record_event
from gateway.jobs.lifecycle import Failure, count_transition, fail
from gateway.jobs.records import spec_to_work_by
from gateway.jobs.repository import AttemptProof, last_checkpoint, lock_job
from gateway.jobs.states import CLAIMABLE
from gateway.kit.ids import new_id
from gateway.models.lineage import require_lineage_files, require_unbroken
from gateway.tables.jobs import Job
from gateway.tables.statistics import DuplicateDelivery
from gateway.workers.worker_events import told_progress
from policies.contract.jobs import JobSpec, Phase
from policies.contract.worker_api import Claim, ClaimRequest, HeartbeatRequest, Order, WorkKind
from policies.errors import IntegrityError

_WAITS_IN: dict[WorkKind, Phase] = {
    "train": Phase.QUEUED,
    "evaluate": Phase.AWAITING_EVALUATION,
    "confirm": Phase.AWAITING_CONFIRMATION,
}
_STARTED = {
    Phase.TRAINING: "Fine-tuning job started",
    Phase.EVALUATING: "Safety evaluation started",
    Phase.CONFIRMING: "Second safety evaluation started",
}
MAX_ETA_SECONDS = 5 * 365 * 86400
"""What a worker says beyond this is no estimate, and no date."""
_ORDERS = {
    Phase.TRAINING: Order.CONTINUE,
    Phase.EVALUATING: Order.CONTINUE,
    Phase.CONFIRMING: Order.CONTINUE,
    Phase.PAUSING: Order.PAUSE,
    Phase.CANCELLING: Order.CANCEL,
}


def claim(session: Session, services: Services, request: ClaimRequest, *, worker_key_hash: str) -> Claim | None:
    """Give the job to this worker, or None where there is nothing (any more) to do, or the job can't be worked on.

    What the job stands on is looked at first: a job that can't be worked on ends where it waits, and was not evaluated.
    """
    if request.kind == "train" and not has_room(services):
        return None  # the job waits, and is sent again later
    job, now = lock_job(session, request.job_id), services.clock()
    if job is None:
        return None
    try:
        spec = _standing_spec(session, job, int(now)) if job.phase == _WAITS_IN[request.kind] else None
    except IntegrityError as refusal:
        fail(session, job, Failure(refusal.code, refusal.message), now)
        return None
    if spec is None or not _take(session, services, job, request=request, worker_key_hash=worker_key_hash):
        session.add(DuplicateDelivery(kind=request.kind, at=now))
        return None
    record_event(session, job, f"{_STARTED[Phase(job.phase)]} (attempt {job.attempts})", now=now)
    return _claim_of(session, services, job=job, spec=spec, kind=request.kind)


def _take(session: Session, services: Services, job: Job, *, request: ClaimRequest, worker_key_hash: str) -> bool:
    """Whether this worker has the job now.

    One conditional UPDATE decides between two workers, and stamps token, lease and first heartbeat at once.
    """
    now, since, waits_in = services.clock(), job.phase_since, _WAITS_IN[request.kind]
    won = session.scalar(
        update(Job)
        .where(Job.id == request.job_id, Job.phase == waits_in.value)
        .values(
            phase=CLAIMABLE[waits_in].value,
            phase_since=now,
            attempts=Job.attempts + 1,
            attempt_token=new_id("attempt_"),
            attempt_kind=request.kind,
            worker=request.worker,
            worker_key_hash=worker_key_hash,
            heartbeat_at=now,
            lease_until=now + services.settings.lease_seconds,
            progress=None,
        )
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    if won is None:
        return False
    session.refresh(job)
    count_transition(session, job, left=waits_in, since=since)
    if request.kind == "evaluate":
        job.evaluated_at = now
    return True


def _standing_spec(session: Session, job: Job, now: int) -> JobSpec:
    """The job's spec, whose lineage is still there."""
    spec = spec_to_work_by(job)
    require_unbroken(session, spec, tenant_id=job.tenant_id)
    require_lineage_files(session, spec, tenant_id=job.tenant_id, now=now)
    return spec


def heartbeat(session: Session, services: Services, *, proof: AttemptProof, request: HeartbeatRequest) -> Order:
    """Extend the lease by the server's clock and say what the tenant wants; `lost` ends the worker's child."""
    now = services.clock()
    values: dict[str, object] = {"heartbeat_at": now, "lease_until": now + services.settings.lease_seconds}
    if request.progress is not None:
        eta = request.progress.eta_seconds
        values["progress"] = told_progress(request.progress)
        values["estimated_finish"] = int(now + eta) if eta is not None and 0 <= eta <= MAX_ETA_SECONDS else None
    phase = session.scalar(
        update(Job).where(proof.matches(), Job.lease_until.is_not(None)).values(values).returning(Job.phase)
    )
    return Order.LOST if phase is None else _ORDERS[Phase(phase)]


def _claim_of(session: Session, services: Services, *, job: Job, spec: JobSpec, kind: WorkKind) -> Claim:
    assert job.attempt_token is not None
    return Claim(
        kind=kind,
        attempt_token=job.attempt_token,
        attempt=job.attempts,
        spec=spec,
        resume_from=last_checkpoint(session, services.stores.of_job(job.id), job.id) if kind == "train" else None,
        training_record=job.training_record_digest,
        heartbeat_seconds=services.settings.heartbeat_seconds,
        lease_seconds=services.settings.lease_seconds,
    )

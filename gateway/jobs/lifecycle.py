"""What happens to a job as it moves: every change of phase is counted, announced and, where work follows, sent.

Callers hold the row lock of the job (`repository.lock_…`).
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.orm import Session

from gateway.jobs.earlier_attempts import forget_if_no_attempt
from gateway.jobs.events import record_event
from gateway.jobs.states import TERMINAL, advance
from gateway.tables.jobs import Job, OutboxMessage
from gateway.tables.statistics import PhaseTransition
from policies.contract.jobs import Phase
from policies.contract.tasks import (
    CONFIRM_QUEUE,
    CONFIRM_RELEASE,
    EVALUATE_ADAPTER,
    EVALUATE_QUEUE,
    TRAIN_ADAPTER,
    TRAIN_QUEUE,
    VALIDATE_FILES,
    VALIDATE_QUEUE,
)

_WORK = {
    Phase.VALIDATING: (VALIDATE_FILES, VALIDATE_QUEUE),
    Phase.QUEUED: (TRAIN_ADAPTER, TRAIN_QUEUE),
    Phase.AWAITING_EVALUATION: (EVALUATE_ADAPTER, EVALUATE_QUEUE),
    Phase.AWAITING_CONFIRMATION: (CONFIRM_RELEASE, CONFIRM_QUEUE),
}
"""Phase that waits for work → the task that does it, and its queue."""

WAITING = tuple(_WORK)


class Failure(NamedTuple):
    """Why a job ends, as `job.error` says it."""

    code: str
    message: str
    param: str | None = None


class Retries(NamedTuple):
    """How often an attempt is followed by another, and after which pause."""

    max_attempts: int
    pause_seconds: float
    redispatch_seconds: float
    """Work that was sent so long ago and is waiting is sent again: so a pause is work that was sent not quite so long
    ago. It lasts at most this long."""


def move(session: Session, job: Job, phase: Phase, now: float, *, announce: bool = True) -> None:
    """Change the phase and count the change; where the new phase waits for a worker, tell one after the commit."""
    left, since = job.phase, job.phase_since
    advance(job, phase, now)
    count_transition(session, job, left=left, since=since)
    job.estimated_finish = None
    if phase in TERMINAL:
        job.sweep_at = now
        forget_if_no_attempt(session, job)
    if phase in _WORK and announce:
        enqueue(session, job, now)


def count_transition(session: Session, job: Job, *, left: str, since: float) -> None:
    seconds = max(0.0, job.phase_since - since)
    names = "+".join(sorted(defense["name"] for defense in job.spec["defenses"])) or "none"
    session.add(
        PhaseTransition(
            job_id=job.id, defense=names, phase_from=left, phase_to=job.phase, seconds=seconds, at=job.phase_since
        )
    )


def enqueue(session: Session, job: Job, now: float) -> None:
    """Write the message that announces the job's next work; it leaves with the commit."""
    task, queue = _WORK[Phase(job.phase)]
    arguments: list[str | int] = [job.id] if job.phase == Phase.VALIDATING else [job.id, job.attempts + 1]
    session.add(OutboxMessage(task=task, queue=queue, arguments=arguments, created_at=now))
    job.dispatched_at = now


def fail(session: Session, job: Job, failure: Failure, now: float) -> None:
    job.error_code, job.error_message, job.error_param = failure
    move(session, job, Phase.FAILED, now)
    record_event(session, job, failure.message, now=now, level="error", data={"code": failure.code})


def remaining_work(job: Job) -> Phase:
    """The phase in which the job waits for what is left to do, by the records that it has."""
    if job.training_record_digest is None:
        return Phase.QUEUED
    return Phase.AWAITING_EVALUATION if job.decision_digest is None else Phase.AWAITING_CONFIRMATION


def requeue(session: Session, job: Job, now: float) -> None:
    move(session, job, remaining_work(job), now)


def retry_or_fail(session: Session, job: Job, *, reason: str, retries: Retries, now: float) -> None:
    """An attempt ended without an answer: try again from the last checkpoint, or give the job up."""
    if job.attempts < retries.max_attempts:
        pause = min(retries.pause_seconds, retries.redispatch_seconds)
        move(session, job, remaining_work(job), now, announce=pause == 0)
        job.dispatched_at = now - retries.redispatch_seconds + pause if pause else now
        record_event(session, job, f"{reason} Trying again from the last checkpoint.", now=now, level="warn")
        return
    message = f"{reason} All {retries.max_attempts} attempts are used up."
    fail(session, job, Failure("attempts_exhausted", message), now)


def repeated_failure(job: Job) -> Failure:
    message = (
        "Two attempts in a row crashed in the same way at the same point, so the job is not tried again; quote "
        f"{job.id} to the operator, whose log has the cause."
    )
    return Failure("repeated_failure", message)


def drop_lease(job: Job, *, keep_token: bool) -> None:
    """End the attempt. The token stays for an attempt that completed, and goes when the lease ran out."""
    job.lease_until = None
    job.worker = None
    if not keep_token:
        job.attempt_token = None

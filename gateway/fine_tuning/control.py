"""Cancel, pause and resume. A repeat is answered with the job; what cannot be is a 400, never a 409.

Where a worker's process holds the job, only the wish is written (`cancelling`, `pausing`): the worker reads it in the
answer to its next heartbeat, and the job moves on once the process is gone.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from gateway.errors import InvalidRequest
from gateway.jobs.events import record_event
from gateway.jobs.lifecycle import move, remaining_work, requeue
from gateway.jobs.states import CLAIMABLE, TERMINAL, public_status
from gateway.tables.jobs import Job
from policies.contract.jobs import Phase

HELD = {Phase.TRAINING, Phase.EVALUATING, Phase.CONFIRMING}
"""A process works on the job and was not yet told to stop."""


def cancel(session: Session, job: Job, now: float) -> None:
    phase = Phase(job.phase)
    if phase in (Phase.CANCELLING, Phase.CANCELLED):
        return
    if phase in TERMINAL:
        raise _impossible(job, "cancelled")
    if phase in HELD or phase is Phase.PAUSING:
        move(session, job, Phase.CANCELLING, now)
        record_event(session, job, "Cancelling: waiting for the worker to stop.", now=now)
        return
    move(session, job, Phase.CANCELLED, now)
    record_event(session, job, "The job was cancelled.", now=now)


def pause(session: Session, job: Job, now: float) -> None:
    phase = Phase(job.phase)
    if phase in (Phase.PAUSING, Phase.PAUSED):
        return
    if phase in HELD:
        move(session, job, Phase.PAUSING, now)
        record_event(session, job, "Pausing: waiting for the worker to save its state.", now=now)
    elif phase in CLAIMABLE:
        move(session, job, Phase.PAUSED, now)
        record_event(session, job, "The job was paused.", now=now)
    else:
        raise _impossible(job, "paused")


def resume(session: Session, job: Job, now: float) -> None:
    phase = Phase(job.phase)
    if phase in HELD or phase in CLAIMABLE:
        return
    if phase is Phase.PAUSED:
        requeue(session, job, now)
        record_event(session, job, "The job was resumed.", now=now)
    elif phase is Phase.PAUSING:
        move(session, job, CLAIMABLE[remaining_work(job)], now)
        record_event(session, job, "The pause was taken back.", now=now)
    else:
        raise _impossible(job, "resumed")


def _impossible(job: Job, wish: str) -> InvalidRequest:
    message = f"Job {job.id} cannot be {wish}: its status is {public_status(job.phase)} ({job.phase})."
    return InvalidRequest(message, "fine_tuning_job_id", f"job_cannot_be_{wish}")

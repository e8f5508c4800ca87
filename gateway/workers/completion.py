"""How an attempt ends: the worker's answer is checked, never believed, and moves the job on."""

from __future__ import annotations

import structlog
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.errors import LeaseGone
from gateway.jobs.events import record_event
from gateway.jobs.lifecycle import Failure, Retries, drop_lease, fail, move, requeue, retry_or_fail
from gateway.jobs.repository import AttemptProof, lock_attempt
from gateway.kit.plain_text import for_tenants
from gateway.tables.jobs import Job
from gateway.workers.evaluation_result import accept_evaluation
from gateway.workers.training_result import accept_training
from policies.contract.jobs import Phase
from policies.contract.worker_api import Completion, Outcome

log = structlog.get_logger(__name__)

CRASH_PAUSES_SECONDS = (2.0, 15.0)
"""Before the second attempt, and before each later one: what made a process crash, a store that does not answer say,
may last some seconds, and must not use all attempts up meanwhile."""


def complete(session: Session, services: Services, *, proof: AttemptProof, completion: Completion) -> None:
    """Accept the answer of the attempt that holds the job; a repeat of the same attempt's answer changes nothing.

    Raises:
        LeaseGone: the job went to another attempt, its lease ran out, or the caller is not who claimed it.
    """
    job = lock_attempt(session, proof)
    if job is None:
        raise LeaseGone("This attempt is no longer the job's own; its answer was not accepted.")
    if job.lease_until is None:
        return
    drop_lease(job, keep_token=True)
    now = services.clock()
    if completion.error_message is not None:
        log.warning("attempt_failed", job=job.id, outcome=completion.outcome.value, reason=completion.error_message)
    if job.phase == Phase.CANCELLING:
        settle_cancelled(session, job, now)
    elif completion.outcome is Outcome.SUCCEEDED:
        _accept(session, services, job=job, completion=completion)
    elif completion.outcome is Outcome.FAILED:
        fail(session, job, _reported_failure(completion), now)
    elif completion.outcome is Outcome.YIELDED:
        _give_back(session, job, now)
    else:
        pause = CRASH_PAUSES_SECONDS[min(job.attempts, len(CRASH_PAUSES_SECONDS)) - 1]
        settle_crashed(session, services, job=job, reason=_crash_reason(completion), pause_seconds=pause)


def settle_cancelled(session: Session, job: Job, now: float) -> None:
    """The process is gone: the job is cancelled, whatever the process had to say."""
    move(session, job, Phase.CANCELLED, now)
    record_event(session, job, "The job was cancelled.", now=now)


def settle_crashed(session: Session, services: Services, *, job: Job, reason: str, pause_seconds: float = 0.0) -> None:
    """An attempt ended without an answer, or never answered again."""
    now, limits = services.clock(), services.settings
    if job.phase == Phase.PAUSING:
        _settle_paused(session, job, now)
    else:
        retries = Retries(limits.max_attempts, pause_seconds, limits.redispatch_seconds)
        retry_or_fail(session, job, reason=reason, retries=retries, now=now)


def _settle_paused(session: Session, job: Job, now: float) -> None:
    move(session, job, Phase.PAUSED, now)
    record_event(session, job, "The job was paused.", now=now)


def _accept(session: Session, services: Services, *, job: Job, completion: Completion) -> None:
    if job.attempt_kind == "train":
        accept_training(session, services, job=job, record_digest=completion.record)
    else:
        accept_evaluation(session, services, job=job, completion=completion)


def _give_back(session: Session, job: Job, now: float) -> None:
    """The worker stopped in good order: because of a pause, or because its machine is taken away."""
    job.attempts = max(0, job.attempts - 1)
    if job.phase == Phase.PAUSING:
        _settle_paused(session, job, now)
    else:
        requeue(session, job, now)
        record_event(session, job, "The worker gave the job back; another one goes on with it.", now=now)


def _reported_failure(completion: Completion) -> Failure:
    message = completion.error_message or "The worker reported a failure without saying what failed."
    return Failure(completion.error_code or "worker_failed", for_tenants(message))


def _crash_reason(completion: Completion) -> str:
    return f"The attempt crashed: {for_tenants(completion.error_message or 'no reason was reported')}."

"""How an attempt ends: the worker's answer is checked, never believed, and moves the job on."""

from __future__ import annotations

from typing import NamedTuple

import structlog
from sqlalchemy.orm import Session

from gateway.base_models.checks import make_due
from gateway.dependencies import Services
from gateway.errors import LeaseGone
from gateway.jobs.events import record_event
from gateway.jobs.lifecycle import (
    Failure,
    Retries,
    drop_lease,
    fail,
    move,
    repeated_failure,
    requeue,
    retry_or_fail,
)
from gateway.jobs.records import RecordError
from gateway.jobs.repository import AttemptProof, lock_attempt
from gateway.tables.jobs import Job
from gateway.workers.evaluation_result import accept_evaluation
from gateway.workers.model_screening import extend_report
from gateway.workers.training_result import accept_training
from policies.contract.jobs import Phase
from policies.contract.worker_api import Completion, Outcome
from policies.errors import BaseModelChangedError
from policies.tenant_text import for_tenants

log = structlog.get_logger(__name__)

CRASH_PAUSES_SECONDS = (2.0, 15.0)
"""Before the second attempt, and before each later one: what made a process crash, a store that does not answer say,
may last some seconds, and must not use all attempts up meanwhile."""


class Crash(NamedTuple):
    """How an attempt ended that gave no answer."""

    reason: str
    signature: str | None = None
    """None: nothing says that the next one would end like it."""
    pause_seconds: float = 0.0


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
        if completion.error_code == BaseModelChangedError.code:
            make_due(session, services, job.model)
        _keep_screening(session, services, job=job, completion=completion)
        fail(session, job, _reported_failure(completion), now)
    elif completion.outcome is Outcome.YIELDED:
        _give_back(session, job, now)
    else:
        pause = CRASH_PAUSES_SECONDS[min(job.attempts, len(CRASH_PAUSES_SECONDS)) - 1]
        settle_crashed(
            session, services, job=job, crash=Crash(_crash_reason(completion), completion.crash_signature, pause)
        )


def settle_cancelled(session: Session, job: Job, now: float) -> None:
    """The process is gone: the job is cancelled, whatever the process had to say."""
    move(session, job, Phase.CANCELLED, now)
    record_event(session, job, "The job was cancelled.", now=now)


def settle_crashed(session: Session, services: Services, *, job: Job, crash: Crash) -> None:
    """An attempt ended without an answer, or never answered again."""
    now, limits = services.clock(), services.settings
    is_repeated = crash.signature is not None and crash.signature == job.crash_signature
    job.crash_signature = crash.signature
    if job.phase == Phase.PAUSING:
        _settle_paused(session, job, now)
    elif is_repeated:
        log.error("attempt_crashed_again", job=job.id, kind=job.attempt_kind, signature=crash.signature)
        fail(session, job, repeated_failure(job), now)
    else:
        retries = Retries(limits.max_attempts, crash.pause_seconds, limits.redispatch_seconds)
        retry_or_fail(session, job, reason=crash.reason, retries=retries, now=now)


def _settle_paused(session: Session, job: Job, now: float) -> None:
    move(session, job, Phase.PAUSED, now)
    record_event(session, job, "The job was paused.", now=now)


def _accept(session: Session, services: Services, *, job: Job, completion: Completion) -> None:
    if job.attempt_kind == "train":
        accept_training(session, services, job=job, record_digest=completion.record)
    else:
        accept_evaluation(session, services, job=job, completion=completion)


def _keep_screening(session: Session, services: Services, *, job: Job, completion: Completion) -> None:
    """What a trainer found in a file that it would not train on; the job fails with or without it."""
    if completion.screening is None or job.attempt_kind != "train":
        return
    try:
        extend_report(session, services, job=job, screening=completion.screening, base_model=None)
    except RecordError as refusal:
        log.warning("screening_refused", job=job.id, reason=refusal.message)


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
    param = None if completion.screening is None else "training_file"
    return Failure(completion.error_code or "worker_failed", for_tenants(message), param)


def _crash_reason(completion: Completion) -> str:
    return f"The attempt crashed: {for_tenants(completion.error_message or 'no reason was reported')}."

"""The reconciler: looks at what is, not at what happened, and puts right what no longer moves by itself.

It runs on the server's clock and may run anywhere, twice, or late: every step is decided under the row's lock. Where
that clock was set back, what the rows say of later moments counts no longer than if it had been said now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import structlog
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.lifecycle import WAITING, Failure, drop_lease, enqueue, fail
from gateway.jobs.outbox import forget_sent
from gateway.jobs.states import RUNNING
from gateway.tables.jobs import Job
from gateway.workers.completion import Crash, settle_cancelled, settle_crashed
from policies.contract.jobs import Phase

log = structlog.get_logger(__name__)

BATCH = 100
LEASED = RUNNING | {Phase.VALIDATING}


class ReconcileSummary(NamedTuple):
    """How many jobs were put right, and how."""

    expired: int
    redispatched: int
    forgotten_messages: int
    overlong: int


def reconcile(session: Session, services: Services, now: float) -> ReconcileSummary:
    return ReconcileSummary(
        expired=_settle_expired(session, services, now),
        redispatched=_send_again(session, services, now),
        forgotten_messages=forget_sent(session, now),
        overlong=_end_overlong(session, services, now),
    )


def _settle_expired(session: Session, services: Services, now: float) -> int:
    """Jobs whose worker fell silent. A running job without any lease counts as well: it must never be left standing."""
    lease_seconds = services.settings.lease_seconds
    # no worker was promised so much, but by a clock that was set back since; other machines' clocks differ by less
    for job in _locked(session, and_(Job.phase.in_(LEASED), Job.lease_until > now + 2 * lease_seconds)):
        job.lease_until = now + lease_seconds
    silent = or_(
        and_(Job.phase.in_(LEASED), Job.lease_until < now), and_(Job.phase.in_(RUNNING), Job.lease_until.is_(None))
    )
    return sum(
        _apart(session, job, lambda job: _settle_silent(session, services, job)) for job in _locked(session, silent)
    )


def _settle_silent(session: Session, services: Services, job: Job) -> None:
    now, worker, last_heard = services.clock(), job.worker, job.heartbeat_at
    drop_lease(job, keep_token=False)
    if job.phase == Phase.VALIDATING:
        job.crash_signature = None
        enqueue(session, job, now)
        return
    if job.phase == Phase.CANCELLING:
        settle_cancelled(session, job, now)
        return
    silence = "" if last_heard is None else f" for {now - last_heard:.0f} s"
    log.warning("worker_fell_silent", job=job.id, worker=worker)
    settle_crashed(session, services, job=job, crash=Crash(f"Nothing was heard from the worker{silence}."))


def _end_overlong(session: Session, services: Services, now: float) -> int:
    """Attempts that take longer than any may: their worker learns that it has lost the job, and kills its process."""
    limit = services.settings.attempt_seconds
    overlong = and_(Job.phase.in_(RUNNING), Job.phase_since < now - limit)

    def end(job: Job) -> None:
        drop_lease(job, keep_token=False)
        if job.phase == Phase.CANCELLING:
            settle_cancelled(session, job, now)
            return
        message = f"The attempt took longer than {limit:g} s, the limit attempt_seconds."
        fail(session, job, Failure("attempt_too_long", message), now)

    return sum(_apart(session, job, end) for job in _locked(session, overlong))


def _send_again(session: Session, services: Services, now: float) -> int:
    """Jobs that wait for work which nobody took up; a validation under way holds a lease and is left alone."""
    sent, again = func.coalesce(Job.dispatched_at, Job.phase_since), services.settings.redispatch_seconds
    unclaimed = and_(
        Job.phase.in_(WAITING),
        or_(sent < now - again, sent > now + again),
        or_(Job.phase != Phase.VALIDATING, Job.lease_until.is_(None)),
    )
    return sum(_apart(session, job, lambda job: enqueue(session, job, now)) for job in _locked(session, unclaimed))


def _apart(session: Session, job: Job, step: Callable[[Job], None]) -> bool:
    """Whether the step was made; a job whose row is broken must not keep all others from being put right."""
    job_id = job.id
    try:
        with session.begin_nested():
            step(job)
    except OperationalError:
        raise  # the database is away, which is no job's own fault
    except Exception as error:
        log.error("job_not_reconciled", job=job_id, exc_info=error)
        return False
    return True


def _locked(session: Session, condition: ColumnElement[bool]) -> list[Job]:
    """Rows that another transaction is moving are skipped: it puts them right, or the next round does."""
    statement = select(Job).where(condition).order_by(Job.phase_since).limit(BATCH)
    return list(session.scalars(statement.with_for_update(skip_locked=True)))

"""The reconciler: looks at what is, not at what happened, and puts right what no longer moves by itself.

It runs on the server's clock and may run anywhere, twice, or late: every step is decided under the row's lock.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.lifecycle import WAITING, drop_lease, enqueue
from gateway.jobs.outbox import forget_sent
from gateway.jobs.states import RUNNING
from gateway.tables.jobs import Job
from gateway.workers.completion import settle_cancelled, settle_crashed
from policies.contract.jobs import Phase

BATCH = 100


class ReconcileSummary(NamedTuple):
    """How many jobs were put right, and how."""

    expired: int
    redispatched: int
    forgotten_messages: int


def reconcile(session: Session, services: Services, now: float) -> ReconcileSummary:
    return ReconcileSummary(
        expired=_settle_expired(session, services, now),
        redispatched=_send_again(session, services, now),
        forgotten_messages=forget_sent(session, now),
    )


def _settle_expired(session: Session, services: Services, now: float) -> int:
    """Jobs whose worker fell silent. A running job without any lease counts as well: it must never be left standing."""
    silent = and_(Job.phase.in_(RUNNING), or_(Job.lease_until.is_(None), Job.lease_until < now))
    jobs = _locked(session, silent)
    for job in jobs:
        worker, last_heard = job.worker or "the worker", job.heartbeat_at
        drop_lease(job, keep_token=False)
        if job.phase == Phase.CANCELLING:
            settle_cancelled(session, job, now)
            continue
        silence = "" if last_heard is None else f" for {now - last_heard:.0f} s"
        settle_crashed(session, services, job=job, reason=f"Nothing was heard from {worker}{silence}.")
    return len(jobs)


def _send_again(session: Session, services: Services, now: float) -> int:
    """Jobs that wait for work which nobody took up; a validation under way holds a lease and is left alone."""
    unclaimed = and_(
        Job.phase.in_(WAITING),
        func.coalesce(Job.dispatched_at, Job.phase_since) < now - services.settings.redispatch_seconds,
        or_(Job.phase != Phase.VALIDATING, Job.lease_until.is_(None), Job.lease_until < now),
    )
    jobs = _locked(session, unclaimed)
    for job in jobs:
        enqueue(session, job, now)
    return len(jobs)


def _locked(session: Session, condition: ColumnElement[bool]) -> list[Job]:
    """Rows that another transaction is moving are skipped: it puts them right, or the next round does."""
    statement = select(Job).where(condition).order_by(Job.phase_since).limit(BATCH)
    return list(session.scalars(statement.with_for_update(skip_locked=True)))

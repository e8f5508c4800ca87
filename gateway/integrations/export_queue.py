"""Whose metrics are exported next: tenants take turns, and of each one export is under way at a time.

A tenant whose tracker hangs costs an exporter its own turns, and fewer of them with each hour that it hangs.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.tables.integrations import MetricsExport
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from policies.contract.jobs import Phase

ENDED = tuple(phase for phase in Phase if phase.is_terminal)
BATCH = 500
"""Rows that are dropped at once."""


class Turn(NamedTuple):
    """A job whose export this process has taken up."""

    job_id: str
    tenant_id: str


def take_turn(services: Services, *, lease_seconds: float) -> Turn | None:
    """Of the tenant that has waited longest for its turn, the export that has been due longest.

    Neither is anybody else's until `end_turn`, or for `lease_seconds` if this process dies.
    """
    now = services.clock()
    with services.database.transaction() as session:
        tenant = _next_tenant(session, now)
        if tenant is None:
            return None
        due = select(MetricsExport).join(Job).where(Job.tenant_id == tenant.id, _is_due(now))
        due = due.order_by(MetricsExport.due_at, MetricsExport.job_id).limit(1)
        row = session.scalar(due.with_for_update(of=MetricsExport, skip_locked=True))
        if row is None:
            return None
        row.due_at = tenant.exports_from = now + lease_seconds
        return Turn(row.job_id, tenant.id)


def end_turn(session: Session, turn: Turn, *, next_from: float) -> None:
    """To be called last in a transaction: others lock a job first, and then its tenant."""
    session.execute(update(Tenant).where(Tenant.id == turn.tenant_id).values(exports_from=next_from))


def drop_untrained(services: Services) -> None:
    """Forget jobs that ended before any worker began with them: there is nothing to export, and never was."""
    never_began = and_(Job.phase.in_(ENDED), Job.attempt_kind.is_(None), MetricsExport.due_at <= services.clock())
    rows = select(MetricsExport.job_id).join(Job).where(never_began).limit(BATCH)
    with services.database.transaction() as session:
        dropped = session.scalars(rows.with_for_update(of=MetricsExport, skip_locked=True)).all()
        session.execute(delete(MetricsExport).where(MetricsExport.job_id.in_(dropped)))


def _next_tenant(session: Session, now: float) -> Tenant | None:
    waiting = select(Job.tenant_id).join(MetricsExport, MetricsExport.job_id == Job.id).where(_is_due(now))
    is_free = or_(Tenant.exports_from.is_(None), Tenant.exports_from <= now)
    turn = select(Tenant).where(Tenant.id.in_(waiting), is_free)
    turn = turn.order_by(func.coalesce(Tenant.exports_from, 0.0), Tenant.id).limit(1)
    return session.scalar(turn.with_for_update(skip_locked=True))


def _is_due(now: float) -> ColumnElement[bool]:
    """Only once a worker has begun with the job: before, there is nothing that a tracker could show."""
    return and_(MetricsExport.due_at <= now, Job.attempt_kind.is_not(None))

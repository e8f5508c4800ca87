"""Whose job is validated next: tenants take turns, and none has more validations at once than it may.

A message says that there is work, not which: whoever receives one goes on until nothing is left that may be taken up.
So no job is lost to a message that came while its tenant had its share; the validation that was under way finds it.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.validation import Inspect, Validation, carry_out, take_up
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from policies.contract.jobs import Phase


def validate_waiting(services: Services, *, inspect: Inspect | None = None) -> int:
    """Validate one job after the other while some may be taken up; returns how many."""
    count = 0
    while (validation := take_up_next(services)) is not None:
        carry_out(services, validation, inspect=inspect)
        count += 1
    return count


def take_up_next(services: Services) -> Validation | None:
    """Lease a job of the tenant that has waited longest for its turn and may have one more validation."""
    passed_over: list[str] = []
    while True:
        with services.database.transaction() as session:
            tenant = _next_tenant(session, services.clock(), passed_over)
            if tenant is None:
                return None
            validation = _take_up_one(session, services, tenant)
            if validation is not None:
                return validation
            passed_over.append(tenant.id)


def _next_tenant(session: Session, now: float, passed_over: list[str]) -> Tenant | None:
    """Its row is locked, so that two validators count its validations one after the other."""
    waits = exists().where(Job.tenant_id == Tenant.id, _is_waiting(now))
    turn = select(Tenant).where(waits, Tenant.id.not_in(passed_over))
    return session.scalar(turn.order_by(func.coalesce(Tenant.validated_at, 0.0), Tenant.id).limit(1).with_for_update())


def _take_up_one(session: Session, services: Services, tenant: Tenant) -> Validation | None:
    """The tenant's oldest job; jobs that can't be taken up have ended meanwhile, and the next one is tried."""
    now = services.clock()
    running = select(func.count()).where(
        Job.tenant_id == tenant.id, Job.phase == Phase.VALIDATING, Job.lease_until >= now
    )
    if (session.scalar(running) or 0) >= services.settings.validations_per_tenant:
        return None
    tenant.validated_at = now
    waiting = select(Job).where(Job.tenant_id == tenant.id, _is_waiting(now)).order_by(Job.created_at, Job.id)
    for job in session.scalars(waiting.limit(1).with_for_update(skip_locked=True)):
        return take_up(session, services, job) or _take_up_one(session, services, tenant)
    return None


def _is_waiting(now: float) -> ColumnElement[bool]:
    return (Job.phase == Phase.VALIDATING) & or_(Job.lease_until.is_(None), Job.lease_until < now)

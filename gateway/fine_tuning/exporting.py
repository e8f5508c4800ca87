"""Exports the metrics of jobs with integrations, one after the other, apart from everything that moves a job.

The rows of `metrics_exports` are the queue: who works on one puts its `due_at` off, so that nobody else does, and
somebody else will if the process dies. A tracker that is out of order costs tries, which come ever more rarely, and a
warning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.errors import ExportFailed, NotFound
from gateway.fine_tuning.connection import credential, destinations
from gateway.fine_tuning.listing import list_checkpoints, list_events
from gateway.fine_tuning.presenting import integrations_of, present_checkpoint, present_event, present_job
from gateway.fine_tuning.reports import report
from gateway.fine_tuning.schemas import EventResponse
from gateway.integrations.documents import JobDocuments
from gateway.integrations.isolated import export_in_child
from gateway.integrations.runs import run_of
from gateway.jobs.events import record_event
from gateway.jobs.repository import lock_job
from gateway.kit.pagination import Cursor, Page
from gateway.tables.integrations import MetricsExport
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from gateway.tenants.auth import Principal
from policies.contract.jobs import Phase
from policies.contract.metrics_export import ExportOrder
from policies.errors import TunegateError

log = structlog.get_logger(__name__)

EXPORT_SECONDS = 60.0
"""Between two exports of a running job; longer where an export takes long."""
UNCHANGED_SECONDS = 300.0
"""The same for one of which nothing new was said: it is paused, waits, or is evaluated."""
BUSY_FACTOR = 20.0
"""A job is exported for a twentieth of the time at most."""
TIMEOUT_SECONDS = 120.0
LEASE_SECONDS = 2 * TIMEOUT_SECONDS
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 3600.0
MAX_FAILURES = 12
"""In a row; with the pauses between them, about six hours."""
QUIET_SECONDS = 1800.0
"""So long after its end, a job's events take no more lines: they may be on their way into a record."""
PAGE = 500
MAX_EVENTS = 100_000
"""Of one job: what an exporter holds in memory."""

Export = Callable[[ExportOrder, Mapping[str, str]], None]


class _Named(Protocol):
    """What a list's next page begins after."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Named)


def export_isolated(order: ExportOrder, secrets: Mapping[str, str]) -> None:
    export_in_child(order, secrets, seconds=TIMEOUT_SECONDS)


def export_due(services: Services, *, export: Export = export_isolated) -> int:
    """Export what is due, the longest due first; gives how many jobs that were."""
    count = 0
    while (job_id := _claim(services)) is not None:
        started = time.monotonic()
        try:
            order = _export(services, job_id, export)
        except (TunegateError, ValueError, OSError) as error:  # ValueError: a record of another version
            _settle_failure(services, job_id, error)
        else:
            _settle(services, job_id, order, seconds=time.monotonic() - started)
        count += 1
    return count


def _claim(services: Services) -> str | None:
    now = services.clock()
    with services.database.transaction() as session:
        due = select(MetricsExport).where(MetricsExport.due_at <= now).order_by(MetricsExport.due_at).limit(1)
        row = session.scalar(due.with_for_update(skip_locked=True))
        if row is None:
            return None
        row.due_at = now + LEASE_SECONDS
        return row.job_id


def _export(services: Services, job_id: str, export: Export) -> ExportOrder | None:
    """What was exported, now or before; None: the job's hyperparameters are not known yet."""
    settings = services.settings
    with services.database.reading() as session:
        job = session.get_one(Job, job_id)
        if job.phase == Phase.VALIDATING:
            return None
        exported = session.get_one(MetricsExport, job_id).exported
        tenant = session.get_one(Tenant, job.tenant_id)
        run = run_of(_documents(session, services, job=job, tenant=tenant))
        places = destinations(settings, tenant.name, integrations_of(job))
    if settings.integration_sink is None:
        raise ExportFailed("No integration is set up any more.", code="unsupported_integration")
    order = ExportOrder(sink=settings.integration_sink, run=run, destinations=places)
    if order.digest != exported:
        export(order, credential(settings, tenant.name))
    return order


def _documents(session: Session, services: Services, *, job: Job, tenant: Tenant) -> JobDocuments:
    """What the API answers to the tenant, by the functions that answer it."""
    found: dict[str, object] = {"job": present_job(job, services).model_dump(mode="json")}
    events = _all_pages(lambda cursor: _event_page(session, services, job=job, cursor=cursor))
    found["events"] = [event.model_dump(mode="json") for event in events]
    checkpoints = _all_pages(lambda cursor: list_checkpoints(session, job, cursor))
    found["checkpoints"] = [present_checkpoint(row, "", released=None).model_dump(mode="json") for row in checkpoints]
    if job.decision is not None:
        caller = Principal(tenant.id, tenant.name, tenant.policy, "")
        try:
            found["report"] = report(job.id, caller, session, services).model_dump(mode="json")
        except NotFound:
            found["report"] = None
    return JobDocuments.model_validate(found)


def _event_page(session: Session, services: Services, *, job: Job, cursor: Cursor) -> Page[EventResponse]:
    page = list_events(session, services.stores, job=job, cursor=cursor)
    return Page([present_event(event) for event in page.items], page.has_more)


def _settle(services: Services, job_id: str, order: ExportOrder | None, *, seconds: float) -> None:
    with services.database.transaction() as session:
        row = session.get_one(MetricsExport, job_id, with_for_update=True)
        digest = None if order is None else order.digest
        is_news = digest is None or digest != row.exported
        row.failures, row.error_code, row.exported = 0, None, digest
        pause = max(EXPORT_SECONDS if is_news else UNCHANGED_SECONDS, BUSY_FACTOR * seconds)
        has_ended = order is not None and order.run.state != "running"
        row.due_at = None if has_ended else services.clock() + pause


def _settle_failure(services: Services, job_id: str, error: TunegateError | ValueError | OSError) -> None:
    now, code = services.clock(), getattr(error, "code", "export_failed")
    with services.database.transaction() as session:
        row = session.get_one(MetricsExport, job_id, with_for_update=True)
        row.failures, row.error_code = row.failures + 1, code
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (row.failures - 1))
        row.due_at = now + pause if row.failures < MAX_FAILURES else None
        log.warning("metrics_export_failed", job_id=job_id, code=code, failures=row.failures, error=str(error)[:1000])
        if row.failures in (1, MAX_FAILURES):
            _warn(session, services, row=row, now=now)


def _warn(session: Session, services: Services, *, row: MetricsExport, now: float) -> None:
    """Says nothing of the operator's: what the tracker answered is in the log."""
    job = lock_job(session, row.job_id)
    is_open = job is not None and job.events_digest is None
    if job is None or not is_open or (Phase(job.phase).is_terminal and now > job.phase_since + QUIET_SECONDS):
        return
    what = f"The job's metrics could not be exported to {services.settings.integration_sink}"
    then = "It is tried again." if row.due_at is not None else "It is given up; `tunegate jobs export` exports them."
    data = {"code": "integration_failed", "reason": row.error_code, "failures": row.failures}
    record_event(session, job, f"{what} ({row.error_code}). {then}", now=now, level="warn", data=data)


def _all_pages(page_at: Callable[[Cursor], Page[T]]) -> list[T]:
    found: list[T] = []
    after: str | None = None
    while True:
        page = page_at(Cursor(PAGE, after))
        found += page.items
        if len(found) > MAX_EVENTS:
            message = f"The job has more than {MAX_EVENTS:,} events; its result file has all figures."
            raise ExportFailed(message, code="export_too_large")
        if not page.has_more:
            return found
        after = page.items[-1].id

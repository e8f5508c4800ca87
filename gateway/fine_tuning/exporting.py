"""Exports the metrics of jobs with integrations, one after the other, apart from everything that moves a job.

The rows of `metrics_exports` are the queue, from which `gateway.integrations.export_queue` takes. A tracker that is out
of order costs tries, which come ever more rarely, and a warning; whatever fails, the next job is taken up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeVar

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.errors import ExportFailed, NotFound
from gateway.fine_tuning.connection import credential, destinations
from gateway.fine_tuning.listing import list_checkpoints, list_events
from gateway.fine_tuning.presenting import integrations_of, present_checkpoint, present_event, present_job
from gateway.fine_tuning.reports import report
from gateway.fine_tuning.schemas import EventResponse
from gateway.integrations.documents import EventDocument, JobDocuments
from gateway.integrations.export_queue import Turn, drop_untrained, end_turn, take_turn
from gateway.integrations.isolated import export_in_child
from gateway.integrations.runs import run_of, told_figures
from gateway.jobs.events import record_event
from gateway.jobs.repository import lock_job
from gateway.kit.pagination import Cursor, Page
from gateway.tables.integrations import MetricsExport
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from gateway.tenants.auth import Principal
from policies.contract.jobs import Phase
from policies.contract.metrics_export import ExportOrder
from policies.contract.storage import outages
from policies.errors import TunegateError

log = structlog.get_logger(__name__)

EXPORT_SECONDS = 60.0
"""Between two exports of a running job; longer where an export takes long."""
UNCHANGED_SECONDS = 300.0
"""The same for one of which nothing new was said: it is paused, waits, or is evaluated."""
BUSY_FACTOR = 20.0
"""A job is exported for a twentieth of the time at most, and so is a tenant while its exports fail."""
TIMEOUT_SECONDS = 120.0
LEASE_SECONDS = 2 * TIMEOUT_SECONDS
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 3600.0
MAX_FAILURES = 12
"""In a row; with the pauses between them, about six hours."""
LAST_FAILURE_SECONDS = 86_400.0
"""A failure so long after the job's end is the last, however few there were: the tenant's others had their turns."""
QUIET_SECONDS = 1800.0
"""So long after its end, a job's events take no more lines: they may be on their way into a record."""
PAGE = 500
MAX_EVENTS, MAX_FIGURES = 100_000, 1_000_000
"""Of one job: what an exporter reads, and what it holds in memory, some 500 MB at most."""

Export = Callable[[ExportOrder, Mapping[str, str]], None]


class _Named(Protocol):
    """What a list's next page begins after."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Named)


def export_isolated(order: ExportOrder, secrets: Mapping[str, str]) -> None:
    try:
        export_in_child(order, secrets, seconds=TIMEOUT_SECONDS)
    except OSError as error:
        raise ExportFailed(f"The process that exports could not be started: {error}") from error


def export_due(services: Services, *, export: Export = export_isolated) -> int:
    """Export what is due, tenant by tenant; gives how many jobs that were.

    Raises:
        SQLAlchemyError: the database is away. What else fails is put off, and logged.
    """
    drop_untrained(services)
    count = 0
    while (turn := take_turn(services, lease_seconds=LEASE_SECONDS)) is not None:
        started = time.monotonic()
        try:
            order = _export(services, turn.job_id, export)
        except Exception as error:  # a store that is away, a record of another version, a fault of ours: others go on
            _settle_failure(services, turn, error, seconds=time.monotonic() - started)
        else:
            _settle(services, turn, order, seconds=time.monotonic() - started)
        count += 1
    return count


def _export(services: Services, job_id: str, export: Export) -> ExportOrder:
    """What was exported, now or before."""
    settings = services.settings
    with services.database.reading() as session:
        job = session.get_one(Job, job_id)
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
    found["events"] = _events(session, services, job)
    checkpoints = _all_pages(lambda cursor: list_checkpoints(session, job, cursor))
    found["checkpoints"] = [present_checkpoint(row, "", released=None).model_dump(mode="json") for row in checkpoints]
    if job.decision is not None:
        caller = Principal(tenant.id, tenant.name, tenant.policy, "")
        try:
            found["report"] = report(job.id, caller, session, services).model_dump(mode="json")
        except NotFound:
            found["report"] = None
    return JobDocuments.model_validate(found)


def _events(session: Session, services: Services, job: Job) -> list[EventDocument]:
    """Those that a tracker is told of, with nothing but their figures."""
    found: list[EventDocument] = []
    n_figures = 0
    for event in _all_pages(lambda cursor: _event_page(session, services, job=job, cursor=cursor)):
        if event.type != "metrics":
            continue
        n_figures += len(event.data)
        if n_figures > MAX_FIGURES:
            raise _too_large(f"{MAX_FIGURES:,} figures")
        data = told_figures(event.data)
        found.append(EventDocument(id=event.id, created_at=event.created_at, type=event.type, data=data))
    return found


def _event_page(session: Session, services: Services, *, job: Job, cursor: Cursor) -> Page[EventResponse]:
    page = list_events(session, services.stores, job=job, cursor=cursor)
    return Page([present_event(event) for event in page.items], page.has_more)


def _all_pages(page_at: Callable[[Cursor], Page[T]]) -> Iterator[T]:
    count = 0
    after: str | None = None
    while True:
        page = page_at(Cursor(PAGE, after))
        count += len(page.items)
        if count > MAX_EVENTS:
            raise _too_large(f"{MAX_EVENTS:,} events")
        yield from page.items
        if not page.has_more:
            return
        after = page.items[-1].id


def _too_large(bound: str) -> ExportFailed:
    return ExportFailed(f"The job has more than {bound}; its result file has all.", code="export_too_large")


def _settle(services: Services, turn: Turn, order: ExportOrder, *, seconds: float) -> None:
    now = services.clock()
    with services.database.transaction() as session:
        row = session.get_one(MetricsExport, turn.job_id, with_for_update=True)
        is_news = order.digest != row.exported
        row.failures, row.error_code, row.exported = 0, None, order.digest
        pause = max(EXPORT_SECONDS if is_news else UNCHANGED_SECONDS, BUSY_FACTOR * seconds)
        row.due_at = now + pause if order.run.state == "running" else None
        end_turn(session, turn, next_from=now)


def _settle_failure(services: Services, turn: Turn, error: Exception, *, seconds: float) -> None:
    """Puts the job off, ever longer, and its tenant's other jobs by the time that this one took."""
    now, code = services.clock(), _code_of(error, store_url=services.settings.store_url)
    tenant_pause = max(FIRST_PAUSE_SECONDS, BUSY_FACTOR * seconds)
    with services.database.transaction() as session:
        row = session.get_one(MetricsExport, turn.job_id, with_for_update=True)
        row.failures, row.error_code = row.failures + 1, code
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (row.failures - 1))
        job = lock_job(session, turn.job_id)
        is_old = job is None or (Phase(job.phase).is_terminal and now > job.phase_since + LAST_FAILURE_SECONDS)
        row.due_at = None if is_old or row.failures >= MAX_FAILURES else now + max(pause, tenant_pause)
        unforeseen = None if isinstance(error, TunegateError) else error
        log.warning(
            "metrics_export_failed",
            job_id=turn.job_id,
            code=code,
            failures=row.failures,
            error=str(error)[:1000],
            exc_info=unforeseen,
        )
        if job is not None and (row.failures == 1 or row.due_at is None):
            _warn(session, services, row=row, job=job)
        end_turn(session, turn, next_from=now + tenant_pause)


def _code_of(error: Exception, *, store_url: str) -> str:
    if isinstance(error, TunegateError):
        return error.code
    if isinstance(error, outages(store_url)):
        return "storage_unavailable"
    if isinstance(error, OperationalError | PoolTimeout):
        return "database_unavailable"
    return "export_failed"


def _warn(session: Session, services: Services, *, row: MetricsExport, job: Job) -> None:
    """Says nothing of the operator's: what the tracker answered is in the log."""
    now = services.clock()
    if job.events_digest is not None or (Phase(job.phase).is_terminal and now > job.phase_since + QUIET_SECONDS):
        return
    what = f"The job's metrics could not be exported to {services.settings.integration_sink}"
    then = "It is tried again." if row.due_at is not None else "It is given up; `tunegate jobs export` exports them."
    data = {"code": "integration_failed", "reason": row.error_code, "failures": row.failures}
    record_event(session, job, f"{what} ({row.error_code}). {then}", now=now, level="warn", data=data)

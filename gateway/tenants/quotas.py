"""What a tenant may have and do: jobs under way, evaluations a day, stored bytes. Each refusal names its limit."""

from __future__ import annotations

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.errors import TooManyRequests
from gateway.tables.jobs import Job
from gateway.tables.tenancy import Tenant
from gateway.tables.uploads import PENDING, Upload
from policies.contract.jobs import Phase

DAY_SECONDS = 86400.0
UNDER_WAY = tuple(phase.value for phase in Phase if not phase.is_terminal)
RETRY_SECONDS = 60


def require_job_quota(session: Session, services: Services, tenant_id: str) -> None:
    """Raises `TooManyRequests` where the tenant may not create one more job.

    Until the transaction ends no other request of the tenant counts, so that two at once don't both take the last one.
    """
    let_others_wait(session, tenant_id)
    limits = services.settings
    under_way = select(func.count()).where(Job.tenant_id == tenant_id, Job.phase.in_(UNDER_WAY))
    if (session.scalar(under_way) or 0) >= limits.jobs_under_way:
        raise TooManyRequests(
            f"You have {limits.jobs_under_way} jobs that have not ended, the limit jobs_under_way; wait or cancel one.",
            code="quota_exceeded",
            retry_after_seconds=RETRY_SECONDS,
        )
    since = services.clock() - DAY_SECONDS
    evaluations = select(func.count()).where(Job.tenant_id == tenant_id, Job.evaluated_at > since)
    if (session.scalar(evaluations) or 0) >= limits.evaluations_per_day:
        raise TooManyRequests(
            f"{limits.evaluations_per_day} of your jobs were evaluated within 24 hours, the limit evaluations_per_day.",
            code="quota_exceeded",
            retry_after_seconds=RETRY_SECONDS,
        )


def require_storage_quota(session: Session, services: Services, tenant_id: str, *, more_bytes: int) -> None:
    """Raises `TooManyRequests` where the tenant's files and parts would take more than it may store.

    As with jobs, until the transaction ends no other upload of the tenant counts.
    """
    let_others_wait(session, tenant_id)
    limit = services.settings.stored_bytes
    stored = session.scalar(select(Tenant.stored_bytes).where(Tenant.id == tenant_id)) or 0
    if stored + more_bytes > limit:
        message = f"Your files would take {stored + more_bytes} bytes of {limit}, the limit stored_bytes; delete some."
        raise TooManyRequests(message, code="quota_exceeded")


def require_upload_quota(session: Session, services: Services, tenant_id: str) -> None:
    """Raises `TooManyRequests` where the tenant may not begin one more upload in parts. The same holds as with jobs."""
    let_others_wait(session, tenant_id)
    limit = services.settings.open_uploads
    pending = (Upload.tenant_id == tenant_id, Upload.status == PENDING, Upload.expires_at > services.now())
    if (session.scalar(select(func.count()).where(*pending)) or 0) >= limit:
        message = (
            f"You have {limit} uploads in parts that have not ended, the limit open_uploads; complete or cancel one."
        )
        raise TooManyRequests(message, code="quota_exceeded", retry_after_seconds=RETRY_SECONDS)


def count_stored(session: Session, tenant_id: str, more_bytes: int) -> None:
    """To be called in the transaction that adds a file or part, or with a negative number where it is deleted."""
    stored = Tenant.stored_bytes + more_bytes
    session.execute(update(Tenant).where(Tenant.id == tenant_id).values(stored_bytes=stored))


def let_others_wait(session: Session, tenant_id: str) -> None:
    """Lock the tenant's row, but not its key: rows that refer to it are written meanwhile, in this transaction too."""
    session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))

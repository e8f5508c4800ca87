"""`/v1/fine_tuning/jobs`: OpenAI's endpoints."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request

from gateway.dependencies import ServicesDep, SessionDep
from gateway.fine_tuning import control
from gateway.fine_tuning.create import create_job
from gateway.fine_tuning.listing import METADATA_FILTER, list_checkpoints, list_events, list_jobs
from gateway.fine_tuning.presenting import present_checkpoint, present_event, present_job
from gateway.fine_tuning.schemas import (
    CheckpointListResponse,
    CreateJobRequest,
    EventListResponse,
    JobListResponse,
    JobResponse,
)
from gateway.jobs.repository import JobId, lock_tenants_job, tenants_job
from gateway.kit.answers import refusals
from gateway.kit.pagination import Cursor
from gateway.models.repository import model_of_job
from gateway.models.service import model_name
from gateway.tenants.auth import CurrentTenant
from gateway.tenants.routes import TenantRoute

router = APIRouter(
    route_class=TenantRoute, prefix="/v1/fine_tuning/jobs", tags=["fine-tuning"], responses=refusals(401)
)
UNKNOWN = refusals(404)

After = Annotated[str | None, Query(max_length=64)]
Limit = Annotated[int, Query(ge=1, le=100)]
IdempotencyHeader = Annotated[str | None, Header(alias="Idempotency-Key")]


@router.post("", responses=refusals(404, 413))
def create(
    body: CreateJobRequest,
    tenant: CurrentTenant,
    session: SessionDep,
    services: ServicesDep,
    idempotency_key: IdempotencyHeader = None,
) -> JobResponse:
    job = create_job(session, services, tenant=tenant, request=body, idempotency_key=idempotency_key)
    return present_job(job, services)


@router.get("", openapi_extra=METADATA_FILTER)
def list_(
    request: Request,
    tenant: CurrentTenant,
    session: SessionDep,
    services: ServicesDep,
    after: After = None,
    limit: Limit = 20,
) -> JobListResponse:
    query = request.query_params.multi_items()
    page = list_jobs(session, tenant.tenant_id, cursor=Cursor(limit, after), query=query)
    return JobListResponse(data=[present_job(job, services) for job in page.items], has_more=page.has_more)


@router.get("/{job_id}", responses=UNKNOWN)
def retrieve(job_id: JobId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> JobResponse:
    return present_job(tenants_job(session, tenant.tenant_id, job_id), services)


@router.post("/{job_id}/cancel", responses=UNKNOWN)
def cancel(job_id: JobId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> JobResponse:
    job = lock_tenants_job(session, tenant.tenant_id, job_id)
    control.cancel(session, job, services.clock())
    return present_job(job, services)


@router.post("/{job_id}/pause", responses=UNKNOWN)
def pause(job_id: JobId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> JobResponse:
    job = lock_tenants_job(session, tenant.tenant_id, job_id)
    control.pause(session, job, services.clock())
    return present_job(job, services)


@router.post("/{job_id}/resume", responses=UNKNOWN)
def resume(job_id: JobId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> JobResponse:
    job = lock_tenants_job(session, tenant.tenant_id, job_id)
    control.resume(session, job, services.clock())
    return present_job(job, services)


@router.get("/{job_id}/events", responses=UNKNOWN)
def events(
    job_id: JobId,
    tenant: CurrentTenant,
    session: SessionDep,
    services: ServicesDep,
    after: After = None,
    limit: Limit = 20,
) -> EventListResponse:
    job = tenants_job(session, tenant.tenant_id, job_id)
    page = list_events(session, services.stores, job=job, cursor=Cursor(limit, after))
    return EventListResponse(data=[present_event(event) for event in page.items], has_more=page.has_more)


@router.get("/{job_id}/checkpoints", responses=UNKNOWN)
def checkpoints(
    job_id: JobId, tenant: CurrentTenant, session: SessionDep, after: After = None, limit: Limit = 10
) -> CheckpointListResponse:
    job = tenants_job(session, tenant.tenant_id, job_id)
    page = list_checkpoints(session, job, Cursor(limit, after))
    name = model_name(job, tenant.tenant_name)
    released = model_of_job(session, job.id)
    data = [present_checkpoint(row, name, released=released) for row in page.items]
    ids = [checkpoint.id for checkpoint in data]
    return CheckpointListResponse(
        data=data, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=page.has_more
    )

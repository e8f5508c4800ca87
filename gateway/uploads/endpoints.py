"""`/v1/uploads`: files that come in parts, as OpenAI's clients send what is too large for one request."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Request

from gateway.dependencies import ServicesDep, SessionDep
from gateway.files.upload import least_bytes
from gateway.files.uploads_under_way import UploadsUnderWay
from gateway.kit.answers import refusals
from gateway.kit.turns import Turns, Work
from gateway.tenants.auth import CurrentTenant
from gateway.tenants.routes import TenantRoute
from gateway.uploads import service
from gateway.uploads.completion import complete_upload
from gateway.uploads.parts import PART_FORM, receive_part
from gateway.uploads.schemas import CompleteUploadRequest, CreateUploadRequest, UploadObject, UploadPartObject

COMPLETION = Work(
    "completions of uploads", "as many as this service lets wait", "completions_waiting", wait_seconds=300.0
)
COMPLETIONS_AT_ONCE, COMPLETIONS_WAITING = 2, 64
"""Of one gateway process, and of one tenant one and a quarter."""

router = APIRouter(prefix="/v1/uploads", route_class=TenantRoute, tags=["uploads"], responses=refusals(401))

UploadId = Annotated[str, Path(max_length=64)]


@router.post("", responses=refusals(413, 429, 503, 507))
def create(
    body: CreateUploadRequest, tenant: CurrentTenant, session: SessionDep, services: ServicesDep
) -> UploadObject:
    return UploadObject.of(service.create_upload(session, services, tenant.tenant_id, body))


@router.post("/{upload_id}/parts", openapi_extra=PART_FORM, responses=refusals(404, 408, 413, 415, 429, 503, 507))
async def add_part(
    request: Request, upload_id: UploadId, tenant: CurrentTenant, services: ServicesDep
) -> UploadPartObject:
    """Asynchronous, because it reads the body as it arrives."""
    tenant_id = tenant.tenant_id
    with _under_way(request).one_more(tenant_id):
        n_bytes = least_bytes(request)
        wanted = partial(service.require_part_wanted, services, tenant_id, upload_id, n_bytes=n_bytes)
        await to_thread.run_sync(wanted)
        part = await receive_part(request, services.stores.of_upload(upload_id))
        return UploadPartObject.of(await to_thread.run_sync(service.add_part, services, tenant_id, upload_id, part))


@router.post("/{upload_id}/complete", responses=refusals(404, 413, 429, 503, 507))
async def complete(
    request: Request, upload_id: UploadId, body: CompleteUploadRequest, tenant: CurrentTenant, services: ServicesDep
) -> UploadObject:
    """Asynchronous, so that it takes no thread of other requests, however large the file is."""
    completions = request.app.state.completions
    assert isinstance(completions, Turns)
    with _under_way(request).one_more(tenant.tenant_id):
        work = partial(complete_upload, services, tenant.tenant_id, upload_id, body)
        return UploadObject.of(*await completions.run(tenant.tenant_id, work))


@router.post("/{upload_id}/cancel", responses=refusals(404, 429, 503))
def cancel(upload_id: UploadId, tenant: CurrentTenant, session: SessionDep, services: ServicesDep) -> UploadObject:
    return UploadObject.of(service.cancel_upload(session, services, tenant.tenant_id, upload_id))


def _under_way(request: Request) -> UploadsUnderWay:
    under_way = request.app.state.uploads
    assert isinstance(under_way, UploadsUnderWay)
    return under_way

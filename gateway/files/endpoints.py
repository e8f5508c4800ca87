"""`/v1/files`, and the free dry run of a file's validation."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse

from gateway.dependencies import Services, ServicesDep, SessionDep
from gateway.files import repository, service
from gateway.files.dataset.report import DatasetReport
from gateway.files.schemas import FileDeleted, FileList, FileListQuery, FileObject
from gateway.files.screening import screen_file
from gateway.files.upload import UPLOAD_FORM, least_bytes, receive_upload
from gateway.files.uploads_under_way import UploadsUnderWay
from gateway.files.validation import dry_run, validate_file
from gateway.kit.answers import content, refusals
from gateway.kit.turns import Turns, Work
from gateway.tenants.auth import CurrentTenant
from gateway.tenants.routes import TenantRoute
from policies.contract.artifacts import Digest
from policies.contract.screening import ScreeningReport
from policies.screening.judging import ScreenedFile

DRY_RUN = Work("free validations", "the limit dry_runs_waiting", "validations_waiting", wait_seconds=60.0)
"""Read by `gateway.files.dataset.sandbox`, in a process of its own."""

router = APIRouter(route_class=TenantRoute, tags=["files"], responses=refusals(401))
UNKNOWN = refusals(404)

FileId = Annotated[str, Path(max_length=64)]


@router.post("/v1/files", openapi_extra=UPLOAD_FORM, responses=refusals(408, 413, 415, 429, 503, 507))
async def upload_file(request: Request, tenant: CurrentTenant, services: ServicesDep) -> FileObject:
    """Asynchronous, because it reads the body as it arrives."""
    under_way = request.app.state.uploads
    assert isinstance(under_way, UploadsUnderWay)
    with under_way.one_more(tenant.tenant_id):
        room = partial(service.require_room, services, tenant.tenant_id, n_bytes=least_bytes(request))
        await to_thread.run_sync(room)
        upload = await receive_upload(request, services.stores.files, max_file_bytes=services.settings.max_file_bytes)
        return FileObject.of(await to_thread.run_sync(service.add_file, services, tenant.tenant_id, upload))


@router.get("/v1/files")
def list_files(
    session: SessionDep,
    services: ServicesDep,
    tenant: CurrentTenant,
    listing: Annotated[FileListQuery, Query()],
) -> FileList:
    return FileList.of(
        repository.list_files(
            session, tenant.tenant_id, purpose=listing.purpose, cursor=listing.cursor(), now=services.now()
        )
    )


@router.get("/v1/files/{file_id}", responses=UNKNOWN)
def retrieve_file(session: SessionDep, services: ServicesDep, tenant: CurrentTenant, file_id: FileId) -> FileObject:
    return FileObject.of(repository.tenants_file(session, tenant.tenant_id, file_id=file_id, now=services.now()))


@router.get(
    "/v1/files/{file_id}/content",
    response_class=StreamingResponse,
    responses=UNKNOWN | content("application/octet-stream"),
)
def download_file(
    session: SessionDep, services: ServicesDep, tenant: CurrentTenant, file_id: FileId
) -> StreamingResponse:
    file = repository.tenants_file(session, tenant.tenant_id, file_id=file_id, now=services.now())
    headers = {
        "content-length": str(file.size_bytes),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
    }
    pieces = service.stream_bytes(services.stores.files, file.digest)
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}", responses=UNKNOWN)
def delete_file(services: ServicesDep, tenant: CurrentTenant, file_id: FileId) -> FileDeleted:
    service.delete_file(services, tenant.tenant_id, file_id)
    return FileDeleted(id=file_id)


@router.post("/v1/guardrail/files/{file_id}/validate", responses=refusals(404, 429, 503))
async def validate(  # parameters of a request
    request: Request,
    services: ServicesDep,
    tenant: CurrentTenant,
    file_id: FileId,
    model: Annotated[str | None, Query(max_length=320)] = None,
    method: Annotated[Literal["supervised", "dpo"] | None, Query()] = None,
) -> DatasetReport:
    """What a job would find in this file, without a job: `model` names the base model whose tokens are counted.

    Without a `method`, the rows decide whether they are chat or preference rows.
    """
    digest = await to_thread.run_sync(_digest, services, tenant.tenant_id, file_id)
    wanted = await to_thread.run_sync(partial(dry_run, services, model=model, method=method))
    dry_runs = request.app.state.dry_runs
    assert isinstance(dry_runs, Turns)
    return await dry_runs.run(tenant.tenant_id, partial(validate_file, services, digest, wanted))


@router.post("/v1/guardrail/files/{file_id}/screen", responses=refusals(404, 429, 503))
async def screen(request: Request, services: ServicesDep, tenant: CurrentTenant, file_id: FileId) -> ScreeningReport:
    """What screening by the tenant's policy finds in this file, without a job. Rows are named and never quoted."""
    digest = await to_thread.run_sync(_digest, services, tenant.tenant_id, file_id)
    policy = services.policies.release_policy(tenant.policy)
    dry_runs = request.app.state.dry_runs
    assert isinstance(dry_runs, Turns)
    return await dry_runs.run(tenant.tenant_id, partial(screen_file, services, ScreenedFile(file_id, digest), policy))


def _digest(services: Services, tenant_id: str, file_id: str) -> Digest:
    with services.database.transaction() as session:
        return repository.tenants_file(session, tenant_id, file_id=file_id, now=services.now()).digest

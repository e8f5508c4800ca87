"""`/v1/files`, and the free dry run of a file's validation."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse

from gateway.dependencies import Services, ServicesDep, SessionDep
from gateway.files import repository, service
from gateway.files.dataset.report import DatasetReport
from gateway.files.dry_runs import DryRuns
from gateway.files.schemas import FileDeleted, FileList, FileListQuery, FileObject
from gateway.files.upload import receive_upload
from gateway.files.validation import inspection_task, validate_file
from gateway.tenants.auth import CurrentTenant
from policies.contract.artifacts import Digest

router = APIRouter(tags=["files"])


@router.post("/v1/files")
async def upload_file(request: Request, tenant: CurrentTenant, services: ServicesDep) -> FileObject:
    """Asynchronous, alone among the endpoints, because it reads the body as it arrives."""
    await to_thread.run_sync(service.require_room, services)
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


@router.get("/v1/files/{file_id}")
def retrieve_file(session: SessionDep, services: ServicesDep, tenant: CurrentTenant, file_id: str) -> FileObject:
    return FileObject.of(repository.tenants_file(session, tenant.tenant_id, file_id=file_id, now=services.now()))


@router.get("/v1/files/{file_id}/content")
def download_file(session: SessionDep, services: ServicesDep, tenant: CurrentTenant, file_id: str) -> StreamingResponse:
    file = repository.tenants_file(session, tenant.tenant_id, file_id=file_id, now=services.now())
    headers = {
        "content-length": str(file.size_bytes),
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename)}",
        "x-content-type-options": "nosniff",
    }
    pieces = service.stream_bytes(services.stores.files, file.digest)
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


@router.delete("/v1/files/{file_id}")
def delete_file(services: ServicesDep, tenant: CurrentTenant, file_id: str) -> FileDeleted:
    service.delete_file(services, tenant.tenant_id, file_id)
    return FileDeleted(id=file_id)


@router.post("/v1/guardrail/files/{file_id}/validate")
async def validate(  # parameters of a request
    request: Request,
    services: ServicesDep,
    tenant: CurrentTenant,
    file_id: str,
    model: Annotated[str | None, Query()] = None,
    method: Annotated[Literal["supervised", "dpo"] | None, Query()] = None,
) -> DatasetReport:
    """What a job would find in this file, without a job: `model` names the base model whose tokens are counted.

    Without a `method`, the rows decide whether they are chat or preference rows.
    """
    digest = await to_thread.run_sync(_digest, services, tenant.tenant_id, file_id)
    task = inspection_task(services, model=model, method=method)
    dry_runs = request.app.state.dry_runs
    assert isinstance(dry_runs, DryRuns)
    return await dry_runs.run(tenant.tenant_id, partial(validate_file, services, digest, task))


def _digest(services: Services, tenant_id: str, file_id: str) -> Digest:
    with services.database.transaction() as session:
        return repository.tenants_file(session, tenant_id, file_id=file_id, now=services.now()).digest

"""`/v1/models`: base models and the tenant's released adapters, and the adapters' bytes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from gateway.base_models.checks import latest_check
from gateway.dependencies import ServicesDep, SessionDep
from gateway.errors import InvalidRequest
from gateway.kit.answers import content, refusals
from gateway.kit.pagination import Cursor
from gateway.models import repository, service
from gateway.models.archive import stream_tar, tar_size_bytes
from gateway.models.schemas import AdapterFile, AdapterFiles, ModelDeleted, ModelList, ModelObject
from gateway.tenants.auth import CurrentTenant
from gateway.tenants.routes import TenantRoute

router = APIRouter(route_class=TenantRoute, tags=["models"], responses=refusals(401))
UNKNOWN = refusals(404)

ModelId = Annotated[str, Path(max_length=320)]
"""A model's name, with the step of a checkpoint."""
URL_SECONDS = 600
"""How long a URL of a file is good for."""
BASE_MODEL_CREATED = 0
"""Base models have no date here; the field is required on the wire."""


@router.get("/v1/models")
def list_models(
    session: SessionDep,
    services: ServicesDep,
    tenant: CurrentTenant,
    after: Annotated[str | None, Query(max_length=320)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> ModelList:
    """The base models, and the tenant's released adapters from the newest on; further pages hold adapters alone."""
    page = repository.list_models(session, tenant.tenant_id, Cursor(limit, after))
    names = sorted(services.policies.base_models) if after is None else []
    bases = [ModelObject.of_base(name, BASE_MODEL_CREATED) for name in names]
    return ModelList(data=bases + [ModelObject.of_released(each) for each in page.items], has_more=page.has_more)


@router.get("/v1/models/{model_id:path}", responses=UNKNOWN)
def retrieve_model(session: SessionDep, services: ServicesDep, tenant: CurrentTenant, model_id: ModelId) -> ModelObject:
    if model_id in services.policies.base_models:
        known = latest_check(session, services.policies.base_model(model_id).spec)
        return ModelObject.of_base(model_id, BASE_MODEL_CREATED, known=known)
    model = repository.tenants_model(session, tenant.tenant_id, model_id)
    return ModelObject.of_released(model, service.judged_base(services.stores, model.row))


@router.delete("/v1/models/{model_id:path}", responses=UNKNOWN)
def delete_model(session: SessionDep, services: ServicesDep, tenant: CurrentTenant, model_id: ModelId) -> ModelDeleted:
    """The name goes at once, the weights soon after; job, report and records stay as evidence."""
    if model_id in services.policies.base_models:
        raise InvalidRequest(f"{model_id!r} is a base model and cannot be deleted.", "model", "not_deletable")
    return ModelDeleted(id=service.delete_model(session, services, tenant_id=tenant.tenant_id, model_id=model_id))


@router.get(
    "/v1/guardrail/models/{model_id:path}/adapter",
    response_class=StreamingResponse,
    responses=UNKNOWN | content("application/x-tar"),
)
def download_adapter(
    session: SessionDep, services: ServicesDep, tenant: CurrentTenant, model_id: ModelId
) -> StreamingResponse:
    """The released adapter as a .tar that `PeftModel.from_pretrained` loads once unpacked."""
    model = repository.tenants_model(session, tenant.tenant_id, model_id).row
    store = services.stores.of_job(model.job_id)
    headers = {
        "content-length": str(tar_size_bytes(store, model.adapter_digest)),
        "content-disposition": 'attachment; filename="adapter.tar"',
        "x-adapter-digest": model.adapter_digest,
    }
    pieces = stream_tar(store, model.adapter_digest)
    return StreamingResponse(pieces, media_type="application/x-tar", headers=headers)


@router.get("/v1/guardrail/models/{model_id:path}/files", responses=UNKNOWN)
def list_adapter_files(
    session: SessionDep, services: ServicesDep, tenant: CurrentTenant, model_id: ModelId
) -> AdapterFiles:
    """Digests of the released adapter's files, and URLs that give them out where the storage is an object storage."""
    model = repository.tenants_model(session, tenant.tenant_id, model_id).row
    store = services.stores.of_job(model.job_id)
    files = [
        AdapterFile(
            name=name,
            digest=digest,
            bytes=store.size_bytes(digest),
            url=store.signed_url(digest, seconds=URL_SECONDS),
        )
        for name, digest in sorted(store.tree(model.adapter_digest).files.items())
    ]
    expires_at = services.now() + URL_SECONDS
    return AdapterFiles(model=model.id, adapter=model.adapter_digest, expires_at=expires_at, files=files)

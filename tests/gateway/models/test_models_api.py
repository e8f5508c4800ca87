"""`/v1/models` through the openai client."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from sqlalchemy import select

from gateway.dependencies import Services
from gateway.models.archive import stream_tar, tar_size_bytes
from gateway.models.service import release_adapter
from gateway.tables.jobs import Job
from gateway.tables.models import Model
from gateway.tables.tenancy import Tenant
from gateway.tenants.keys import create_key
from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.artifacts import TreeManifest
from policies.contract.jobs import LoraSettings
from tests.adapter_bytes import weights_of
from tests.gateway.models.conftest import BASE

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway
    from tests.gateway.models.conftest import Case

BASE_MODEL = "smollm2-135m-instruct"


@pytest.fixture
def services(live_gateway: LiveGateway) -> Services:
    """The records are made in the gateway that listens."""
    return live_gateway.services


@pytest.fixture
def model_id(services: Services, passed: Callable[..., Case]) -> str:
    """A released model of the tenant `acme`."""
    case = passed("acme")
    with services.database.transaction() as session:
        return release_adapter(session, services, job=session.merge(case.job), decision=case.decision).id


@pytest.fixture
def owner(live_gateway: LiveGateway, model_id: str) -> OpenAI:
    with live_gateway.services.database.transaction() as session:
        tenant = session.scalars(select(Tenant).where(Tenant.name == "acme")).one()
        key = create_key(session, tenant, now=live_gateway.services.now()).secret
    return live_gateway.client(key)


@pytest.fixture
def stranger(live_gateway: LiveGateway, model_id: str) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key("stranger"))


def adapter_url(client: OpenAI, model_id: str) -> str:
    return f"{str(client.base_url).removesuffix('/v1/')}/v1/guardrail/models/{model_id}/adapter"


def test_base_models_and_own_releases_are_listed_with_their_lineage(owner: OpenAI, model_id: str) -> None:
    models = {model.id: model for model in owner.models.list()}
    assert set(models) == {BASE_MODEL, model_id}
    assert models[BASE_MODEL].object == "model"
    assert models[model_id].model_dump()["parent"] == models[model_id].model_dump()["root"] == BASE_MODEL
    assert models[BASE_MODEL].model_dump()["parent"] is None


def test_model_is_retrieved_by_its_name(owner: OpenAI, model_id: str) -> None:
    assert owner.models.retrieve(model_id).id == model_id
    assert owner.models.retrieve(BASE_MODEL).id == BASE_MODEL


def test_a_released_model_names_the_base_that_it_was_judged_on(
    services: Services, owner: OpenAI, model_id: str
) -> None:
    assert owner.models.retrieve(model_id).model_dump()["base_digest"] == BASE
    assert owner.models.retrieve(BASE_MODEL).model_dump()["base_digest"] is None
    with services.database.reading() as session:
        model = session.get_one(Model, model_id)
    services.stores.of_job(model.job_id).delete(model.manifest_digest)
    assert owner.models.retrieve(model_id).model_dump()["base_digest"] is None


def test_unknown_model_is_a_404_even_with_a_slash(owner: OpenAI) -> None:
    for name in ("ft:none", "owner/none"):
        with pytest.raises(NotFoundError) as error:
            owner.models.retrieve(name)
        assert error.value.code == "model_not_found"


def test_another_tenants_model_is_a_404_everywhere(stranger: OpenAI, model_id: str) -> None:
    assert [model.id for model in stranger.models.list()] == [BASE_MODEL]
    for call in (stranger.models.retrieve, stranger.models.delete):
        with pytest.raises(NotFoundError):
            call(model_id)
    for name in ("adapter", "files"):
        with pytest.raises(NotFoundError):
            stranger.get(adapter_url(stranger, model_id).removesuffix("adapter") + name, cast_to=httpx.Response)


def test_deleted_model_is_gone(owner: OpenAI, model_id: str) -> None:
    deleted = owner.models.delete(model_id)
    assert (deleted.id, deleted.deleted) == (model_id, True)
    assert [model.id for model in owner.models.list()] == [BASE_MODEL]
    with pytest.raises(NotFoundError):
        owner.models.retrieve(model_id)
    with pytest.raises(NotFoundError):
        owner.get(adapter_url(owner, model_id), cast_to=httpx.Response)


def test_base_model_cannot_be_deleted(owner: OpenAI) -> None:
    with pytest.raises(BadRequestError) as error:
        owner.models.delete(BASE_MODEL)
    assert error.value.code == "not_deletable"


def test_adapter_is_downloaded_as_a_tar(owner: OpenAI, model_id: str) -> None:
    answer = owner.get(adapter_url(owner, model_id), cast_to=httpx.Response)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        assert archive.getnames() == sorted(ADAPTER_FILES)
        weights = archive.extractfile("adapter_model.safetensors")
        assert weights is not None
        assert weights.read() == weights_of(LoraSettings(), bytes(range(256)) * 5)


def test_files_are_listed_with_their_digests(live_gateway: LiveGateway, owner: OpenAI, model_id: str) -> None:
    url = adapter_url(owner, model_id).removesuffix("adapter") + "files"
    listed = owner.get(url, cast_to=httpx.Response).json()
    assert [file["name"] for file in listed["files"]] == sorted(ADAPTER_FILES)
    assert {file["url"] for file in listed["files"]} == {None}
    manifest = TreeManifest(files={file["name"]: file["digest"] for file in listed["files"]})
    assert manifest.digest == listed["adapter"] == owner.models.retrieve(model_id).model_dump()["adapter"]


def test_archive_is_the_same_each_time_and_as_long_as_announced(
    services: Services, passed: Callable[..., Case]
) -> None:
    case = passed()
    adapter = case.training.adapter
    store = services.stores.of_job(case.job.id)
    first, second = (b"".join(stream_tar(store, adapter)) for _ in range(2))
    assert first == second
    assert len(first) == tar_size_bytes(store, adapter)


def test_many_models_come_in_pages(
    services: Services, passed: Callable[..., Case], owner: OpenAI, model_id: str
) -> None:
    """Newest first; base models are on the first page only."""
    with services.database.transaction() as session:
        tenant = session.scalars(select(Tenant).where(Tenant.name == "acme")).one()
        first = session.get_one(Model, model_id)
        for number in range(5):
            job = session.get_one(Job, first.job_id)
            values = {column.key: getattr(job, column.key) for column in Job.__table__.columns}
            session.add(Job(**values | {"id": f"ftjob-{number}", "attempt_token": None}))
            session.flush()
            session.add(
                Model(
                    id=f"ft:{number}",
                    tenant_id=tenant.id,
                    job_id=f"ftjob-{number}",
                    adapter_digest=first.adapter_digest,
                    manifest_digest=first.manifest_digest,
                    created_at=first.created_at + 1 + number // 2,
                )
            )
    pages, after = [], None
    for _ in range(3):
        query = {"limit": 2} | ({} if after is None else {"after": after})
        page = owner.get("/models", cast_to=httpx.Response, options={"params": query}).json()
        pages.append([model["id"] for model in page["data"]])
        after = pages[-1][-1]
    assert pages == [[BASE_MODEL, "ft:4", "ft:3"], ["ft:2", "ft:1"], ["ft:0", model_id]]
    assert page["has_more"] is False
    assert {model.id for model in owner.models.list()} == {BASE_MODEL, model_id, *(f"ft:{n}" for n in range(5))}

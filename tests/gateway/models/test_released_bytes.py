"""What was released stays whole and is given out as it was evaluated, whatever tenants and storage do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from openai import APIConnectionError, OpenAI
from sqlalchemy import select
from typer.testing import CliRunner

from evaluator.gate import decide
from gateway.cli.commands import COMMANDS
from gateway.dependencies import Services
from gateway.errors import ApiError
from gateway.files.service import delete_expired_files
from gateway.models.service import release_adapter
from gateway.tables.tenancy import Tenant
from gateway.tenants.keys import create_key
from policies.cli.main import build_app
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.contract.artifacts import TreeManifest, digest_tree
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway
    from tests.gateway.models.conftest import Case


@pytest.fixture
def services(live_gateway: LiveGateway) -> Services:
    """The records are made in the gateway that listens."""
    return live_gateway.services


@pytest.fixture
def case(services: Services, passed: Callable[..., Case]) -> Case:
    """A released job of the tenant `acme`."""
    case = passed("acme")
    with services.database.transaction() as session:
        case.job = session.merge(case.job)
        release_adapter(session, services, job=case.job, decision=case.decision)
    return case


@pytest.fixture
def store(services: Services, case: Case) -> ArtifactStore:
    return services.stores.of_job(case.job.id)


@pytest.fixture
def owners_key(services: Services, case: Case) -> str:
    with services.database.transaction() as session:
        tenant = session.scalars(select(Tenant).where(Tenant.name == "acme")).one()
        return create_key(session, tenant, now=services.now()).secret


@pytest.fixture
def download(live_gateway: LiveGateway, case: Case, owners_key: str, tmp_path: Path) -> Callable[[], Path]:
    """The command of the customer, into a folder of its own."""

    def run() -> Path:
        environment = {"TUNEGATE_BASE_URL": f"{live_gateway.url}/v1", "TUNEGATE_API_KEY": owners_key}
        arguments = ["models", "download", str(case.job.fine_tuned_model), str(tmp_path / "adapter")]
        CliRunner().invoke(
            build_app(COMMANDS), arguments, env=environment, catch_exceptions=False, standalone_mode=False
        )
        return tmp_path / "adapter"

    return run


@pytest.fixture
def copied(live_gateway: LiveGateway, case: Case, store: ArtifactStore) -> tuple[OpenAI, list[str]]:
    """A stranger who uploaded the bytes of everything that the release stands on, and the files' ids."""
    stranger = live_gateway.client(live_gateway.tenant_key("stranger"))
    digests = [*store.tree(case.training.adapter).files.values(), case.training.adapter, case.report.digest]
    expiry = {"anchor": "created_at", "seconds": 3600}
    contents = [store.read_bytes(digest) for digest in digests]
    files = [
        stranger.files.create(file=("a.jsonl", content), purpose="fine-tune", expires_after=expiry)  # type: ignore[arg-type]  # a plain dict
        for content in contents
    ]
    return stranger, [file.id for file in files]


def overwrite(store: ArtifactStore, name: str, case: Case, content: bytes) -> None:
    """Exchange the bytes of one of the adapter's files in the storage."""
    digest = store.tree(case.training.adapter).files[name].removeprefix("sha256:")
    path = Path(store.url.removeprefix("file://"), "sha256", digest[:2], digest)
    assert path.exists()
    path.write_bytes(content)


def test_a_download_is_the_evaluated_adapter(download: Callable[[], Path], case: Case) -> None:
    assert digest_tree(download()) == case.report.adapter


def test_deleting_copies_of_a_release_leaves_it_whole(
    copied: tuple[OpenAI, list[str]], download: Callable[[], Path], case: Case
) -> None:
    stranger, file_ids = copied
    for file_id in file_ids:
        stranger.files.delete(file_id)
    assert digest_tree(download()) == case.report.adapter


def test_expiry_of_copies_of_a_release_leaves_it_whole(
    live_gateway: LiveGateway, copied: tuple[OpenAI, list[str]], download: Callable[[], Path], case: Case
) -> None:
    live_gateway.clock.advance(3601)
    assert delete_expired_files(live_gateway.services) == len(copied[1])
    assert digest_tree(download()) == case.report.adapter


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
@pytest.mark.parametrize(
    "changed", [b"", b"other bytes", bytes(range(255, -1, -1)) * 5], ids=["none", "short", "same length"]
)
def test_exchanged_bytes_are_not_given_out(
    store: ArtifactStore, case: Case, download: Callable[[], Path], tmp_path: Path, *, name: str, changed: bytes
) -> None:
    overwrite(store, name, case, changed)
    with pytest.raises((IntegrityError, ApiError)):
        download()
    assert not (tmp_path / "adapter").exists()


def test_exchanged_bytes_of_a_file_are_not_given_out(live_gateway: LiveGateway, client: OpenAI) -> None:
    content = b"x" * (3 << 20)
    file_id = client.files.create(file=("a.jsonl", content), purpose="fine-tune").id
    files = Path(live_gateway.services.stores.files.url.removeprefix("file://"), "sha256")
    (path,) = (path for path in files.rglob("*") if path.is_file())
    path.write_bytes(content[:-1] + b"y")
    with pytest.raises((httpx.RemoteProtocolError, APIConnectionError)):
        client.with_options(max_retries=0).files.content(file_id).read()


@pytest.mark.parametrize("name", ["sitecustomize.py", "tokenizer_config.json", "README.md", "deep/adapter_config.json"])
def test_an_adapter_with_anything_else_is_not_released(
    services: Services, passed: Callable[..., Case], name: str
) -> None:
    case = passed("globex")
    store = services.stores.of_job(case.job.id)
    files = store.tree(case.training.adapter).files | {name: store.put_bytes(b"print('hello')")}
    assert_not_released(services, case, TreeManifest(files=files), "is wrong")


@pytest.mark.parametrize(
    "setting",
    [
        {"base_model_name_or_path": "another"},
        {"r": 10**9},
        {"target_modules": "(a+)+$"},
        {"target_modules": ["q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"auto_mapping": {"base_model_class": "os"}},
    ],
)
def test_an_adapter_that_says_otherwise_is_not_released(
    services: Services, passed: Callable[..., Case], setting: dict[str, object]
) -> None:
    case = passed("globex")
    store = services.stores.of_job(case.job.id)
    files = store.tree(case.training.adapter).files
    config = json.loads(store.read_bytes(files[CONFIG_FILE])) | setting
    changed = files | {CONFIG_FILE: store.put_bytes(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())}
    assert_not_released(services, case, TreeManifest(files=changed), "is not what the recipe")


def assert_not_released(services: Services, case: Case, adapter: TreeManifest, reason: str) -> None:
    """Everything else agrees on the adapter, as if trainer and evaluator had not looked."""
    store = services.stores.of_job(case.job.id)
    digest = store.put_record(adapter)
    training = case.training.model_copy(update={"adapter": digest})
    proof = case.report.proof.model_copy(update={"adapter": digest})
    report = case.report.model_copy(update={"adapter": digest, "proof": proof})
    decision = decide(services.policies.release_policy("baseline"), report, spec=report.spec)
    job = case.job
    job.adapter_digest, job.training_record_digest = digest, store.put_record(training)
    job.report_digest, job.decision_digest = store.put_record(report), store.put_record(decision)
    with pytest.raises(IntegrityError, match=reason), services.database.transaction() as session:
        release_adapter(session, services, job=session.merge(job), decision=decision)

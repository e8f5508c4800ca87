"""The IAM policies of `deploy/iam`: with its own, each component can do its work and nothing else, by an S3 server that
asks for rights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import s3fs
from moto.core import enable_iam_authentication
from openai import APIStatusError
from sqlalchemy import select
from structlog.typing import EventDict

from gateway.app import build_services
from gateway.files.service import delete_expired_files, delete_orphaned_bytes
from gateway.jobs.retention import DAY_SECONDS, sweep_due_jobs
from gateway.settings import GatewaySettings
from gateway.tables.files import File
from gateway.uploads.sweep import sweep_uploads
from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.artifacts import digest_bytes
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Outcome
from policies.documents.schema import ReleasePolicy
from tests.gateway.checked_bases import byte_text, keep_sound_checks
from tests.gateway.conftest import LiveGateway, gateway_settings, quiet_log, run_gateway
from tests.gateway.databases import migrated_file
from tests.gateway.hand_worker import HandWorker, job_row, release, submit, submit_queued, upload, validate_here
from tests.gateway.records import report_on, store_evaluation, training_record
from tests.s3_server import S3Server, new_bucket
from trainer.run import fetch_continued

__all__ = ["quiet_log"]

COMPONENTS = ("gateway", "gateway-worker", "validator", "trainer", "evaluator")
POLICIES = Path(__file__).parents[2] / "deploy" / "iam"
JOB = "ftjob-1"


class Storage:
    """A bucket, and a user for each component that has the component's policy alone."""

    def __init__(self, url: str, server: S3Server) -> None:
        self.url = url
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        iam = boto3.client("iam", endpoint_url=server.url)
        self._keys = {}
        for component in COMPONENTS:
            document = (POLICIES / f"{component}.json").read_text().replace("BUCKET", bucket).replace("PREFIX", prefix)
            user = f"{component}-{bucket}"
            iam.create_user(UserName=user)
            iam.put_user_policy(UserName=user, PolicyName="store", PolicyDocument=document)
            self._keys[component] = iam.create_access_key(UserName=user)["AccessKey"]

    @contextmanager
    def as_(self, component: str) -> Iterator[ArtifactStores]:
        """Its credentials are those of this process, for every connection that is opened in the block, and are asked
        for."""
        with pytest.MonkeyPatch.context() as environment, enable_iam_authentication():
            environment.setenv("AWS_ACCESS_KEY_ID", self._keys[component]["AccessKeyId"])
            environment.setenv("AWS_SECRET_ACCESS_KEY", self._keys[component]["SecretAccessKey"])
            s3fs.S3FileSystem.clear_instance_cache()
            yield ArtifactStores(self.url)
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def storage(s3_server: S3Server) -> Iterator[Storage]:
    with new_bucket(s3_server) as url:
        yield Storage(url, s3_server)


@contextmanager
def running(storage: Storage, settings: GatewaySettings) -> Iterator[LiveGateway]:
    """With the gateway's rights; what base models read text by, an evaluator has written."""
    with storage.as_("evaluator") as stores:
        stores.base_texts.put_record(byte_text())
    with storage.as_("gateway"), run_gateway(settings, has_checked_bases=False) as gateway:
        keep_sound_checks(gateway.services)
        yield gateway


def test_every_policy_names_what_it_allows_and_allows_no_deletion_to_those_who_handle_uploads() -> None:
    assert sorted(path.stem for path in POLICIES.glob("*.json")) == sorted(COMPONENTS)
    for component in COMPONENTS:
        statements = json.loads((POLICIES / f"{component}.json").read_text())["Statement"]
        actions = [action for each in statements for action in [each["Action"]] for action in _listed(action)]
        assert not any("*" in action for action in actions)
        assert {each["Effect"] for each in statements} == {"Allow"}
        deletes = "s3:DeleteObject" in actions
        assert deletes == (component not in ("trainer", "evaluator"))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_each_component_can_do_its_part_of_a_job(storage: Storage, tmp_path: Path) -> None:
    """From upload to release, to the deletion of the file, and to the sweeps. Both workers are played by hand, with the
    operations on the store that `trainer.run` and `evaluator.run` make."""
    (tmp_path / "gateway.db").write_bytes(migrated_file())
    settings = gateway_settings(tmp_path, store_url=storage.url)
    with running(storage, settings) as gateway:
        assert gateway.ask_operations("/readyz").status_code == 200
        client, worker = gateway.client(gateway.tenant_key()), HandWorker(gateway)
        job = submit(client)
        with storage.as_("validator"):
            validator = build_services(settings, gateway.clock)
            validate_here(validator, job.id)
        with storage.as_("gateway"):
            claim = worker.must_claim(job.id)
        with storage.as_("trainer") as stores:
            store, folder = stores.of_job(job.id), tmp_path / "state"
            stores.files.fetch_file(claim.spec.training_file, folder / "training.jsonl")
            assert store.holds_tree(store.put_subtree(store.put_tree(folder), ["training.jsonl"]))
            record = store.put_record(training_record(claim.spec, store))
        with storage.as_("gateway"):
            worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record)
            claim = worker.must_claim(job.id, "evaluate")
        with storage.as_("evaluator") as stores:
            store = stores.of_job(job.id)
            training = store.get_record(record, TrainingRecord)
            store.fetch_tree(training.adapter, tmp_path / "adapter")
            policy = stores.shared.get_record(claim.spec.policy, ReleasePolicy)
            report = report_on(training, policy, samples=store.put_bytes(b""))
            digests = store_evaluation(store, report, policy, spec=claim.spec.digest)
        with storage.as_("gateway"):
            worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=digests[0], decision=digests[1])
            assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
            assert client.files.content(job.training_file).read()
            client.files.delete(job.training_file)
            assert not gateway.services.stores.files.exists(claim.spec.training_file)
            upload(client, b"{}\n")
            with gateway.services.database.transaction() as session:
                for file in session.scalars(select(File)):
                    file.expires_at = gateway.services.now()
        with storage.as_("gateway-worker"):
            control = build_services(settings, gateway.clock)
            assert delete_expired_files(control) == 2
            assert list(control.stores.files.stored()) == []
        with storage.as_("validator") as stores:
            left = stores.of_job(job.id).put_bytes(b"left behind")
            for _ in range(3):
                gateway.clock.advance(100 * DAY_SECONDS)
                sweep_due_jobs(validator)
            delete_orphaned_bytes(validator)
            assert not stores.of_job(job.id).exists(left)
            assert job_row(validator, job.id).sweep_at is None
        with storage.as_("gateway"):
            assert client.fine_tuning.jobs.list_events(job.id).data
        worker.close()
        for services in (validator, control):
            services.database.close()


def test_parts_are_the_gateways_to_write_and_the_validators_to_sweep(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "gateway.db").write_bytes(migrated_file())
    settings = gateway_settings(tmp_path, store_url=storage.url)
    with running(storage, settings) as gateway:
        client, content = gateway.client(gateway.tenant_key()), b'{"a": 1}\n'
        done = client.uploads.upload_file_chunked(
            file=content, filename="a.jsonl", bytes=9, mime_type="text/jsonl", purpose="fine-tune", part_size=5
        )
        assert done.file is not None
        with storage.as_("validator") as stores:
            assert sweep_uploads(build_services(settings, gateway.clock)) == 1
            assert list(stores.of_upload(done.id).stored()) == []
        with storage.as_("gateway"):
            assert client.files.content(done.file.id).read() == content


def test_a_trainer_can_read_the_adapter_that_a_job_continues_from(storage: Storage, tmp_path: Path) -> None:
    """It lies with the job that released it, and nobody has to copy it."""
    (tmp_path / "gateway.db").write_bytes(migrated_file())
    settings = gateway_settings(tmp_path, store_url=storage.url)
    with running(storage, settings) as gateway:
        client, worker = gateway.client(gateway.tenant_key()), HandWorker(gateway)
        first = release(gateway, client, worker)
        spec = worker.must_claim(submit_queued(gateway, client, model=first)).spec
        assert spec.continues is not None
        with storage.as_("trainer") as stores:
            fetch_continued(stores, spec, spec.continues.parent, tmp_path / "continued")
        assert {path.name for path in (tmp_path / "continued").iterdir()} == set(ADAPTER_FILES)
        worker.close()


def put(store: ArtifactStore) -> None:
    store.put_bytes(b"mine now")


def stream(store: ArtifactStore) -> None:
    with store.writer() as writer:
        writer.write(b"mine now")


def delete(store: ArtifactStore) -> None:
    store.delete(EVERYWHERE)


def delete_all(store: ArtifactStore) -> None:
    store.delete_all()


EVERYWHERE = digest_bytes(b"everywhere")
Act = Callable[[ArtifactStore], None]


def forbidden() -> Iterator[tuple[str, Act, str]]:
    """Component, what it must not do, and where."""
    for component in ("trainer", "evaluator"):
        for act in (put, stream, delete):
            yield from ((component, act, where) for where in ("shared", "files"))
        yield component, delete, "job"
        yield component, delete_all, "files"
    yield from (("gateway", delete, where) for where in ("shared", "job"))
    yield from (("gateway-worker", act, "job") for act in (put, stream, delete))
    yield from (
        ("gateway-worker", act, where) for act, where in ((put, "files"), (stream, "files"), (delete, "shared"))
    )
    yield from (("validator", act, where) for act, where in ((put, "files"), (stream, "files"), (delete, "shared")))


@pytest.fixture(scope="module")
def filled(s3_server: S3Server) -> Iterator[Storage]:
    """With the same artifact in each of its stores."""
    with new_bucket(s3_server) as url:
        stores = ArtifactStores(url)
        for store in (stores.shared, stores.files, stores.of_job(JOB)):
            store.put_bytes(b"everywhere")
        yield Storage(url, s3_server)


@pytest.mark.parametrize(("component", "act", "where"), list(forbidden()))
def test_a_component_is_refused_what_is_not_its_own(filled: Storage, component: str, act: Act, where: str) -> None:
    with filled.as_(component) as stores:
        store = {"shared": stores.shared, "files": stores.files, "job": stores.of_job(JOB)}[where]
        with pytest.raises(PermissionError):
            act(store)
        assert store.read_bytes(EVERYWHERE) == b"everywhere"
        assert not store.exists(digest_bytes(b"mine now"))


def test_a_gateway_without_its_rights_says_so(storage: Storage, tmp_path: Path, quiet_log: list[EventDict]) -> None:
    (tmp_path / "gateway.db").write_bytes(migrated_file())
    settings = gateway_settings(tmp_path, store_url=storage.url)
    with storage.as_("gateway"):
        build_services(settings)
    with storage.as_("trainer"), run_gateway(settings, has_checked_bases=False) as gateway:
        with pytest.raises(APIStatusError, match="its operator has to mend that") as error:
            upload(gateway.client(gateway.tenant_key()))
        assert (error.value.status_code, error.value.code) == (503, "storage_refused")
        answer = gateway.ask_operations("/readyz")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "storage_refused")
    assert {entry["path"] for entry in quiet_log if entry["event"] == "storage_refused"} == {"/v1/files", "/readyz"}

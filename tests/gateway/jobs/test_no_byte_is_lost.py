"""Uploads, jobs, deletions, expiry and sweeps in any order: nothing that anybody may still read loses a byte.

Tenants upload, whole and in parts, among others copies of what the service wrote. The model is the list of what each
side may count on.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from gateway.app import build_services
from gateway.files.service import (
    ORPHANS_KEPT_SECONDS,
    add_file,
    delete_expired_files,
    delete_file,
    delete_orphaned_bytes,
)
from gateway.files.upload import PURPOSE
from gateway.files.upload import Upload as Received
from gateway.fine_tuning import control
from gateway.fine_tuning.create import create_job
from gateway.fine_tuning.schemas import CreateJobRequest
from gateway.jobs.retention import DAY_SECONDS, KEPT_STATES, sweep_due_jobs
from gateway.jobs.states import TERMINAL
from gateway.models.service import delete_model
from gateway.tables.files import File
from gateway.tables.jobs import Job
from gateway.tables.models import Model
from gateway.tables.tenancy import Tenant
from gateway.tables.uploads import Upload, UploadPart
from gateway.tenants.auth import Principal
from gateway.tenants.keys import create_tenant
from gateway.uploads.completion import complete_upload
from gateway.uploads.parts import ReceivedPart
from gateway.uploads.repository import parts_of
from gateway.uploads.schemas import CompleteUploadRequest, CreateUploadRequest
from gateway.uploads.service import LIFE_SECONDS, add_part, cancel_upload, create_upload
from gateway.uploads.sweep import sweep_uploads
from gateway.workers import leases
from gateway.workers.completion import complete
from gateway.workers.worker_events import record_worker_events
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.jobs import Phase
from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import Claim, ClaimRequest, Completion, Outcome, WorkerEvent, WorkKind
from policies.documents.schema import ReleasePolicy
from tests.gateway.checked_bases import check_base_models
from tests.gateway.conftest import ManualClock, chat_jsonl, gateway_settings
from tests.gateway.databases import migrated_file
from tests.gateway.hand_worker import KEY_HASH, proof_of, validate_here
from tests.gateway.records import checkpoint, report_on, store_evaluation, training_record

TENANTS = ("acme", "globex")
EXPIRES_AFTER_SECONDS = 3600


class Uploaded(NamedTuple):
    """What a tenant may read as long as it neither deleted it nor let it expire."""

    tenant: str
    content: bytes
    expires_at: float | None


class Parts(NamedTuple):
    """An upload in parts that may be completed within the hour."""

    tenant: str
    content: bytes
    part_ids: list[str]
    begun_at: float


class Storage(RuleBasedStateMachine):
    """Two tenants, one store, and a storage that is swept at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = ManualClock()
        (self.folder / "gateway.db").write_bytes(migrated_file())
        self.services = build_services(gateway_settings(self.folder), self.clock)
        check_base_models(self.services)
        with self.services.database.transaction() as session:
            made = [create_tenant(session, name, policy="baseline", now=1) for name in TENANTS]
            self.tenants = {each.id: Principal(each.id, each.name, each.policy, "key") for each in made}
        self.files: dict[str, Uploaded] = {}
        self.pending: dict[str, Parts] = {}
        self.claims: dict[str, Claim] = {}
        self.saved: dict[str, list[CheckpointRecord]] = {}
        self.written: list[bytes] = []
        """Bytes of the service's own artifacts, for tenants to upload copies of."""

    @initialize()
    def one_release(self) -> None:
        """So that there is something to lose."""
        job_id = self._create(sorted(self.tenants)[0], chat_jsonl())
        for kind in ("train", "evaluate"):
            self._claim(job_id, kind)
            self._succeed(job_id, drift=0.0)

    def teardown(self) -> None:
        self.services.database.engine.dispose()
        shutil.rmtree(self.folder)

    # tenants

    @rule(data=st.data(), expires=st.booleans())
    def upload(self, data: st.DataObject, expires: bool) -> None:
        tenant = data.draw(st.sampled_from(sorted(self.tenants)))
        content = data.draw(st.sampled_from([chat_jsonl(), b"{}\n", *self.written[-8:]]))
        self._upload(tenant, content, EXPIRES_AFTER_SECONDS if expires else None)

    def _upload(self, tenant: str, content: bytes, expires_after: int | None) -> str:
        digest = self.services.stores.files.put_bytes(content)
        upload = Received("a.jsonl", digest, len(content), expires_after)
        file = add_file(self.services, tenant, upload)
        self.files[file.id] = Uploaded(tenant, content, file.expires_at)
        return file.id

    @rule(data=st.data(), end=st.sampled_from(["complete", "cancel", "later"]))
    def upload_in_parts(self, data: st.DataObject, end: str) -> None:
        tenant = data.draw(st.sampled_from(sorted(self.tenants)))
        content = data.draw(st.sampled_from([chat_jsonl(), b"{}\n{}\n"]))
        request = CreateUploadRequest(
            bytes=len(content), filename="a.jsonl", mime_type="text/jsonl", purpose=PURPOSE, expires_after=None
        )
        with self.services.database.transaction() as session:
            upload_id = create_upload(session, self.services, tenant, request).id
        store, half = self.services.stores.of_upload(upload_id), len(content) // 2
        received = [ReceivedPart(store.put_bytes(part), len(part)) for part in (content[:half], content[half:])]
        parts = [add_part(self.services, tenant, upload_id, each).id for each in received]
        self.pending[upload_id] = Parts(tenant, content, parts, self.clock())
        if end == "complete":
            self._complete_upload(upload_id)
        elif end == "cancel":
            with self.services.database.transaction() as session:
                cancel_upload(session, self.services, tenant, upload_id)
            del self.pending[upload_id]

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def complete_an_upload(self, data: st.DataObject) -> None:
        self._complete_upload(data.draw(st.sampled_from(sorted(self.pending))))

    def _complete_upload(self, upload_id: str) -> None:
        tenant, content, parts, _ = self.pending.pop(upload_id)
        request = CompleteUploadRequest(part_ids=parts)
        file = complete_upload(self.services, tenant, upload_id, request).file
        assert file is not None
        self.files[file.id] = Uploaded(tenant, content, None)

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def delete_a_file(self, data: st.DataObject) -> None:
        file_id = data.draw(st.sampled_from(sorted(self.files)))
        delete_file(self.services, self.files.pop(file_id).tenant, file_id)

    @rule(data=st.data())
    def create_a_job(self, data: st.DataObject) -> None:
        self._create(data.draw(st.sampled_from(sorted(self.tenants))), chat_jsonl())

    def _create(self, tenant: str, rows: bytes) -> str:
        file_id = self._upload(tenant, rows, None)
        request = CreateJobRequest(model="smollm2-135m-instruct", training_file=file_id, seed=7)
        with self.services.database.transaction() as session:
            who = self.tenants[tenant]
            job_id = create_job(session, self.services, tenant=who, request=request, idempotency_key=None).id
        validate_here(self.services, job_id)
        return job_id

    @rule(data=st.data())
    def cancel_a_job(self, data: st.DataObject) -> None:
        running = [job.id for job in self._jobs() if Phase(job.phase) not in TERMINAL]
        if not running:
            return
        with self.services.database.transaction() as session:
            control.cancel(session, session.get_one(Job, data.draw(st.sampled_from(running))), self.clock())

    @rule(data=st.data())
    def delete_a_model(self, data: st.DataObject) -> None:
        models = self._models()
        if not models:
            return
        model = data.draw(st.sampled_from(models))
        with self.services.database.transaction() as session:
            delete_model(session, self.services, tenant_id=model.tenant_id, model_id=model.id)

    # workers

    @rule(data=st.data())
    def a_worker_claims(self, data: st.DataObject) -> None:
        waiting = [job for job in self._jobs() if job.phase in (Phase.QUEUED, Phase.AWAITING_EVALUATION)]
        if waiting:
            job = data.draw(st.sampled_from(waiting))
            self._claim(job.id, "train" if job.phase == Phase.QUEUED else "evaluate")

    def _claim(self, job_id: str, kind: WorkKind) -> None:
        with self.services.database.transaction() as session:
            request = ClaimRequest(kind=kind, job_id=job_id, worker="w")
            claim = leases.claim(session, self.services, request, worker_key_hash=KEY_HASH)
        assert claim is not None
        self.claims[job_id] = claim

    @precondition(lambda self: any(claim.kind == "train" for claim in self.claims.values()))
    @rule(data=st.data(), n=st.integers(1, 4))
    def a_worker_saves(self, data: st.DataObject, n: int) -> None:
        job_id = data.draw(st.sampled_from(sorted(id for id, claim in self.claims.items() if claim.kind == "train")))
        saved, store = self.saved.setdefault(job_id, []), self.services.stores.of_job(job_id)
        for _ in range(n):
            record = checkpoint(store, len(saved) + 1, self.claims[job_id].spec.base_model)
            event = WorkerEvent(type="checkpoint", message="saved", checkpoint=record)
            proof, now = proof_of(self.claims[job_id]), self.clock()
            with self.services.database.transaction() as session:
                record_worker_events(session, proof=proof, events=(event,), now=now)
            saved.append(record)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), drift=st.sampled_from([0.0, 0.5]))
    def a_worker_succeeds(self, data: st.DataObject, drift: float) -> None:
        self._succeed(data.draw(st.sampled_from(sorted(self.claims))), drift)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def a_worker_yields(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.claims)))
        self._complete(job_id, Completion(outcome=Outcome.YIELDED))

    def _succeed(self, job_id: str, drift: float) -> None:
        claim, store = self.claims[job_id], self.services.stores.of_job(job_id)
        record = training_record(claim.spec, store, checkpoints=tuple(self.saved.get(job_id, ())))
        if claim.kind == "train":
            self._complete(job_id, Completion(outcome=Outcome.SUCCEEDED, record=store.put_record(record)))
            files = store.tree(record.adapter)
            self.written += [files.canonical(), record.canonical(), *map(store.read_bytes, files.files.values())]
            return
        policy = self.services.stores.shared.get_record(claim.spec.policy, ReleasePolicy)
        samples = store.put_bytes(f"samples of {job_id}".encode())
        report = report_on(record, policy, drift=drift, attempt=claim.spec.attempt, samples=samples)
        digests = store_evaluation(store, report, policy, spec=claim.spec.digest)
        self._complete(job_id, Completion(outcome=Outcome.SUCCEEDED, record=digests[0], decision=digests[1]))
        self.written += [policy.canonical(), report.canonical()]

    def _complete(self, job_id: str, completion: Completion) -> None:
        proof = proof_of(self.claims.pop(job_id))
        with self.services.database.transaction() as session:
            complete(session, self.services, proof=proof, completion=completion)

    # time and sweeps

    @rule(days=st.sampled_from([0.01, 0.05, 1.0, 8.0, 31.0, 100.0]))
    def time_passes(self, days: float) -> None:
        self.clock.advance(days * DAY_SECONDS)
        self.files = {
            name: file
            for name, file in self.files.items()
            if file.expires_at is None or file.expires_at > int(self.clock())
        }

        self.pending = {
            name: upload
            for name, upload in self.pending.items()
            if int(upload.begun_at) + LIFE_SECONDS > int(self.clock())
        }

    @rule()
    def sweep(self) -> None:
        sweep_uploads(self.services)
        delete_expired_files(self.services)
        sweep_due_jobs(self.services)

    @rule()
    def sweep_orphans(self) -> None:
        """As if everything had been written long ago."""
        for path in (self.folder / "store" / "files").rglob("*"):
            os.utime(path, (1.0, self.clock() - ORPHANS_KEPT_SECONDS - 1))
        delete_orphaned_bytes(self.services)

    # what must hold

    @invariant()
    def files_can_be_read(self) -> None:
        for file in self.files.values():
            assert self._reads(file.content)

    @invariant()
    def open_uploads_are_whole(self) -> None:
        for name, upload in self.pending.items():
            store = self.services.stores.of_upload(name)
            assert b"".join(store.read_bytes(each.digest) for each in self._parts(name)) == upload.content

    @invariant()
    def what_counts_is_what_lies_there(self) -> None:
        """Of files that are not deleted, and of parts whose bytes are there."""
        with self.services.database.reading() as session:
            for tenant in session.scalars(select(Tenant)):
                sizes = select(File.size_bytes).where(File.tenant_id == tenant.id, File.deleted_at.is_(None))
                parts = select(UploadPart.size_bytes).join(Upload).where(Upload.tenant_id == tenant.id)
                assert tenant.stored_bytes == sum(session.scalars(sizes)) + sum(session.scalars(parts))

    @invariant()
    def waiting_and_running_jobs_have_their_rows_and_states(self) -> None:
        for job in self._jobs():
            if Phase(job.phase) in TERMINAL:
                continue
            assert self.services.stores.files.read_bytes(job.spec["training_file"]) == chat_jsonl()
            for record in self.saved.get(job.id, [])[-KEPT_STATES:]:
                self._require_whole(job.id, record.state)
                self._require_whole(job.id, record.adapter)

    @invariant()
    def released_adapters_are_whole(self) -> None:
        for model in self._models():
            self._require_whole(model.job_id, model.adapter_digest)

    @invariant()
    def evidence_is_whole(self) -> None:
        for job in self._jobs():
            store = self.services.stores.of_job(job.id)
            for digest in (job.spec_digest, job.training_record_digest, job.report_digest, job.decision_digest):
                assert digest is None or store.read_bytes(digest)
            assert self.services.stores.shared.read_bytes(job.policy_digest)

    def _reads(self, content: bytes) -> bool:
        return self.services.stores.files.read_bytes(digest_bytes(content)) == content

    def _require_whole(self, job_id: str, folder: Digest) -> None:
        store = self.services.stores.of_job(job_id)
        for digest in store.tree(folder).files.values():
            store.read_bytes(digest)

    def _parts(self, upload_id: str) -> list[UploadPart]:
        with self.services.database.reading() as session:
            found = parts_of(session, upload_id)
        return [found[part_id] for part_id in self.pending[upload_id].part_ids]

    def _jobs(self) -> list[Job]:
        with self.services.database.transaction() as session:
            return list(session.query(Job).order_by(Job.id))

    def _models(self) -> list[Model]:
        with self.services.database.transaction() as session:
            return list(session.query(Model).where(Model.deleted_at.is_(None)).order_by(Model.id))


TestStorage = Storage.TestCase
TestStorage.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    phases=[hypothesis.Phase.generate],  # shrinking a failure takes minutes; its steps are few enough to read
    suppress_health_check=list(HealthCheck),
)

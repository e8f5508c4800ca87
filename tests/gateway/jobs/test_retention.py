"""Artifacts go when nobody wants them any more, and not before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from openai import OpenAI

from gateway.files.service import ORPHANS_KEPT_SECONDS, delete_orphaned_bytes
from gateway.jobs.retention import DAY_SECONDS, GRACE_SECONDS, sweep_due_jobs
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest
from policies.contract.evaluation import CandidateResult, EvalReport
from policies.contract.release import GateDecision
from policies.contract.store import ArtifactStore
from policies.contract.training import CheckpointRecord, TrainingRecord
from policies.contract.worker_api import Outcome, WorkerEvent
from tests.gateway.conftest import LiveGateway, gateway_settings
from tests.gateway.hand_worker import HandWorker, evaluate, job_row, submit_queued
from tests.gateway.records import checkpoint, training_record

POLICY = """\
apiVersion: tunegate/v1
kind: ReleasePolicy
metadata: {name: short, version: "1"}
spec:
  retention: {checkpoints_days: 1, unreleased_adapters_days: 2, samples_days: 3}
  suite: {probes: [{probe: coherence}]}
  rules: [{id: coherence, metric: coherence.incoherent_rate, max_increase_over_base: 0.1}]
"""


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "short.yaml").write_text(POLICY)
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key(policy="short"))


class Ended(NamedTuple):
    """A job whose training left three checkpoints, and whose evaluation left samples."""

    job_id: str
    store: ArtifactStore
    checkpoints: list[CheckpointRecord]
    samples: Digest


MakeEnded = Callable[..., Ended]


def save(worker: HandWorker, token: str, record: CheckpointRecord) -> None:
    event = WorkerEvent(type="checkpoint", message="saved", checkpoint=record)
    worker.send_events(token, event).raise_for_status()


@pytest.fixture
def ended(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> MakeEnded:
    def make(drift: float = 0.0) -> Ended:
        job_id = submit_queued(live_gateway, client)
        store, claim = live_gateway.services.stores.of_job(job_id), worker.must_claim(job_id)
        saved = [checkpoint(store, step, claim.spec.base_model) for step in (1, 2, 3)]
        for each in saved:
            save(worker, claim.attempt_token, each)
        record = training_record(claim.spec, store, checkpoints=tuple(saved))
        worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(record))
        samples = store.put_bytes(b"")
        evaluate(live_gateway, worker, job_id, drift=drift, samples=samples)
        return Ended(job_id, store, saved, samples)

    return make


def require_evidence(gateway: LiveGateway, ended: Ended) -> None:
    """The records can still be read."""
    job, store = job_row(gateway.services, ended.job_id), ended.store
    assert job.training_record_digest is not None
    assert job.report_digest is not None
    assert job.decision_digest is not None
    store.get_record(job.training_record_digest, TrainingRecord)
    store.get_record(job.report_digest, EvalReport)
    store.get_record(job.decision_digest, GateDecision)
    assert store.exists(job.spec_digest)


def pass_days(gateway: LiveGateway, days: float) -> int:
    gateway.clock.advance(days * DAY_SECONDS)
    return sweep_due_jobs(gateway.services)


def test_nothing_goes_within_the_hour_after_the_end(live_gateway: LiveGateway, ended: MakeEnded) -> None:
    job = ended()
    sweep_due_jobs(live_gateway.services)
    live_gateway.clock.advance(GRACE_SECONDS - 1)
    assert sweep_due_jobs(live_gateway.services) == 0
    assert all(job.store.holds_tree(each.adapter) for each in job.checkpoints)


def test_states_go_first_then_samples_and_a_released_adapter_never(
    live_gateway: LiveGateway, client: OpenAI, ended: MakeEnded
) -> None:
    job = ended()
    adapter = job_row(live_gateway.services, job.job_id).adapter_digest
    assert adapter is not None
    pass_days(live_gateway, 0.9)
    assert all(job.store.holds_tree(each.state) for each in job.checkpoints[1:])
    assert pass_days(live_gateway, 0.2) > 0
    assert not any(job.store.exists(each.state) or job.store.exists(each.adapter) for each in job.checkpoints)
    assert job.store.exists(job.samples)
    pass_days(live_gateway, 1.8)
    assert job.store.exists(job.samples)
    pass_days(live_gateway, 0.2)
    assert not job.store.exists(job.samples)
    for _ in range(2):  # its events go into their record, and a sweep later their rows
        pass_days(live_gateway, 1000)
    assert job.store.holds_tree(adapter)
    require_evidence(live_gateway, job)
    assert job_row(live_gateway.services, job.job_id).sweep_at is None


def test_a_rejected_adapter_goes_and_its_records_stay(live_gateway: LiveGateway, ended: MakeEnded) -> None:
    job = ended(drift=0.5)
    adapter = job_row(live_gateway.services, job.job_id).adapter_digest
    assert adapter is not None
    pass_days(live_gateway, 1.9)
    assert job.store.holds_tree(adapter)
    assert pass_days(live_gateway, 0.2) > 0
    assert not job.store.exists(adapter)
    require_evidence(live_gateway, job)


def test_reports_of_other_candidates_stay_and_their_samples_go(live_gateway: LiveGateway, ended: MakeEnded) -> None:
    job = ended()
    digest = job_row(live_gateway.services, job.job_id).report_digest
    assert digest is not None
    report = job.store.get_record(digest, EvalReport)
    samples = job.store.put_bytes(b"of another candidate")
    other = job.store.put_record(report.model_copy(update={"samples": samples}))
    candidate = CandidateResult(step=1, adapter=job.checkpoints[0].adapter, decision="reject", report=other)
    with live_gateway.services.database.transaction() as session:
        row = session.get_one(Job, job.job_id)
        row.report_digest = job.store.put_record(report.model_copy(update={"candidates": (candidate,)}))
    pass_days(live_gateway, 2.9)
    assert job.store.exists(samples)
    pass_days(live_gateway, 0.2)
    assert not job.store.exists(samples)
    job.store.get_record(other, EvalReport)
    require_evidence(live_gateway, job)


def test_a_job_whose_records_are_broken_keeps_all_and_holds_up_no_other(
    live_gateway: LiveGateway, ended: MakeEnded
) -> None:
    broken, sound = ended(), ended()
    with live_gateway.services.database.transaction() as session:
        session.get_one(Job, broken.job_id).report_digest = broken.store.put_bytes(b"{}")
    n_stored = len(list(broken.store.stored()))
    assert pass_days(live_gateway, 1.1) > 0
    assert len(list(broken.store.stored())) == n_stored
    assert not any(sound.store.exists(each.state) for each in sound.checkpoints)
    assert job_row(live_gateway.services, broken.job_id).sweep_at is not None


def test_weights_of_a_deleted_model_go_with_the_next_sweep(
    live_gateway: LiveGateway, client: OpenAI, ended: MakeEnded
) -> None:
    job = ended()
    adapter = job_row(live_gateway.services, job.job_id).adapter_digest
    model = client.fine_tuning.jobs.retrieve(job.job_id).fine_tuned_model
    assert adapter is not None
    assert model is not None
    pass_days(live_gateway, 10)
    client.models.delete(model)
    assert sweep_due_jobs(live_gateway.services) > 0
    assert not job.store.exists(adapter)
    require_evidence(live_gateway, job)


def test_a_running_job_keeps_two_states_to_resume_from(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    store, claim = live_gateway.services.stores.of_job(job_id), worker.must_claim(job_id)
    unknown = store.put_bytes(b"half of the next checkpoint")
    saved = [checkpoint(store, step, claim.spec.base_model) for step in range(1, 6)]
    for each in saved:
        save(worker, claim.attempt_token, each)
        sweep_due_jobs(live_gateway.services)
    assert [store.holds_tree(each.state) for each in saved] == [False, False, False, True, True]
    assert [store.holds_tree(each.adapter) for each in saved] == [False, False, False, True, True]
    assert store.exists(unknown)
    worker.end(claim.attempt_token, Outcome.YIELDED)
    assert worker.must_claim(job_id).resume_from == saved[-1]


def test_a_state_that_lost_a_file_is_not_resumed_from(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker
) -> None:
    job_id = submit_queued(live_gateway, client)
    store, claim = live_gateway.services.stores.of_job(job_id), worker.must_claim(job_id)
    saved = [checkpoint(store, step, claim.spec.base_model) for step in (1, 2)]
    for each in saved:
        save(worker, claim.attempt_token, each)
    store.delete(store.tree(saved[1].state).files["optimizer.safetensors"])
    worker.end(claim.attempt_token, Outcome.CRASHED)
    assert worker.must_claim(job_id).resume_from == saved[0]


def test_bytes_of_uploads_that_died_go_after_a_day(live_gateway: LiveGateway, client: OpenAI) -> None:
    files = live_gateway.services.stores.files
    kept = client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune").id
    orphan = files.put_bytes(b"a row that no file object names")
    written_at = max(artifact.written_at for artifact in files.stored())
    live_gateway.clock.now = written_at + ORPHANS_KEPT_SECONDS - 60
    assert delete_orphaned_bytes(live_gateway.services) == 0
    live_gateway.clock.advance(120)
    assert delete_orphaned_bytes(live_gateway.services) == 1
    assert not files.exists(orphan)
    assert client.files.content(kept).read() == b"{}\n"


def test_a_full_store_takes_no_upload_and_starts_no_training(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit_queued(live_gateway, client)
    free = live_gateway.services.stores.shared.free_bytes()
    assert free is not None
    live_gateway.services.settings.min_free_bytes = 2 * free
    with pytest.raises(Exception, match="nearly full") as error:
        client.files.create(file=("a.jsonl", b"{}\n"), purpose="fine-tune")
    assert getattr(error.value, "status_code", None) == 507
    assert worker.claim(job_id) is None
    live_gateway.services.settings.min_free_bytes = 0
    assert worker.must_claim(job_id).spec.job_id == job_id

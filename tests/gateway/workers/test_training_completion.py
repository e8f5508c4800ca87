"""How training attempts end: every answer a worker can give, honest, forged and repeated."""

from __future__ import annotations

import csv
import io

import pytest
from openai import OpenAI

from policies.contract.artifacts import digest_bytes
from policies.contract.training import DefenseEvidence
from policies.contract.worker_api import Completion, Outcome, WorkerEvent
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, error_code, job_row, spec_of, train
from tests.gateway.records import checkpoint, put_earlier_adapter, training_record

ELSEWHERE = digest_bytes(b"something else")


def finish_training(gateway: LiveGateway, worker: HandWorker, job_id: str, /, **changes: object) -> None:
    claim = worker.must_claim(job_id)
    store = gateway.services.stores.shared
    record = store.put_record(training_record(claim.spec, store, **changes))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record)


def test_trained_job_waits_for_its_evaluation(live_gateway: LiveGateway, client: OpenAI, trained: str) -> None:
    job = client.fine_tuning.jobs.retrieve(trained)
    assert (job.status, job.trained_tokens) == ("running", 345)
    assert job_row(live_gateway.services, trained).phase == "awaiting_evaluation"


def test_training_log_becomes_a_result_file(client: OpenAI, trained: str) -> None:
    (file_id,) = client.fine_tuning.jobs.retrieve(trained).result_files
    assert client.files.retrieve(file_id).purpose == "fine-tune-results"
    assert client.files.content(file_id).text == "step,loss,kl\n1.0,2.0,\n2.0,1.5,0.02\n"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", '=HYPERLINK("http://x")', "\t=1", "\r=1"])
def test_no_column_of_the_result_file_is_a_formula(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str, name: str
) -> None:
    """Numbers below zero stay numbers."""
    finish_training(live_gateway, worker, job_id, log_history=({"step": 1.0, name: -0.5},))
    (file_id,) = client.fine_tuning.jobs.retrieve(job_id).result_files
    header, row = csv.reader(io.StringIO(client.files.content(file_id).text, newline=""))
    assert header == ["step", f"'{name.strip()}"]
    assert row == ["1.0", "-0.5"]


@pytest.mark.parametrize("changes", [{"log_history": ({"a\0b": 1.0},)}, {"dtype": "\0"}, {"versions": {"torch": "\0"}}])
def test_record_with_text_that_no_database_holds_fails_the_job(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, changes: dict[str, object]
) -> None:
    finish_training(live_gateway, worker, job_id, **changes)
    assert error_code(live_gateway.services, job_id) == "integrity_error"


def test_more_tokens_than_32_bits_count_are_kept(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    finish_training(live_gateway, worker, job_id, trained_tokens=2**40)
    assert client.fine_tuning.jobs.retrieve(job_id).trained_tokens == 2**40


def test_record_of_another_spec_fails_the_job(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    finish_training(live_gateway, worker, job_id, spec=ELSEWHERE)
    assert error_code(live_gateway.services, job_id) == "record_mismatch"


def test_missing_adapter_fails_the_job(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    finish_training(live_gateway, worker, job_id, adapter=ELSEWHERE)
    assert error_code(live_gateway.services, job_id) == "artifact_missing"


def test_an_adapter_in_the_form_of_earlier_versions_fails_a_new_job(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    services = live_gateway.services
    adapter = put_earlier_adapter(services.stores.shared, spec_of(services, job_id).base_model, b"weights")
    finish_training(live_gateway, worker, job_id, adapter=adapter)
    assert error_code(services, job_id) == "integrity_error"
    assert "must hold" in (job_row(services, job_id).error_message or "")


@pytest.mark.parametrize("digest", [None, ELSEWHERE])
def test_missing_record_fails_the_job(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, digest: str | None
) -> None:
    worker.end(worker.must_claim(job_id).attempt_token, Outcome.SUCCEEDED, record=digest)
    assert error_code(live_gateway.services, job_id) == "artifact_missing"


def test_artifact_that_is_no_record_fails_the_job(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    record = live_gateway.services.stores.shared.put_bytes(b'{"spec": 1}')
    worker.end(worker.must_claim(job_id).attempt_token, Outcome.SUCCEEDED, record=record)
    assert error_code(live_gateway.services, job_id) == "integrity_error"


def test_record_in_another_form_than_the_canonical_fails_the_job(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    """The same content with a space: its digest is not the one that decisions and manifests would name."""
    store = live_gateway.services.stores.shared
    record = store.put_bytes(training_record(spec_of(live_gateway.services, job_id), store).canonical() + b" ")
    worker.end(worker.must_claim(job_id).attempt_token, Outcome.SUCCEEDED, record=record)
    assert error_code(live_gateway.services, job_id) == "integrity_error"


@pytest.mark.parametrize(
    "spoilt",
    [
        pytest.param({"acted": False}, id="did-not-act"),
        pytest.param({"figures": {}}, id="no-figures"),
        pytest.param({"figures": {"steps": 0.0}}, id="all-zero"),
        pytest.param({"name": "another_defense"}, id="of-another-defense"),
    ],
)
def test_evidence_that_a_defense_did_nothing_fails_the_job(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, spoilt: dict[str, object]
) -> None:
    record = training_record(spec_of(live_gateway.services, job_id), live_gateway.services.stores.shared)
    first, *others = record.evidence
    finish_training(live_gateway, worker, job_id, evidence=(first.model_copy(update=spoilt), *others))
    assert error_code(live_gateway.services, job_id) == "defense_evidence_missing"


def test_second_evidence_cannot_make_up_for_one_that_did_not_act(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    record = training_record(spec_of(live_gateway.services, job_id), live_gateway.services.stores.shared)
    idle = DefenseEvidence(name=record.evidence[0].name, acted=False, figures={"steps": 1.0}, explanation="Off.")
    finish_training(live_gateway, worker, job_id, evidence=(*record.evidence, idle))
    assert error_code(live_gateway.services, job_id) == "defense_evidence_missing"


def test_repeated_completion_changes_nothing(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    claim, store = worker.must_claim(job_id), live_gateway.services.stores.shared
    completion = Completion(outcome=Outcome.SUCCEEDED, record=store.put_record(training_record(claim.spec, store)))
    answers = [worker.complete(claim.attempt_token, completion).status_code for _ in range(3)]
    assert answers == [204, 204, 204]
    assert job_row(live_gateway.services, job_id).phase == "awaiting_evaluation"
    assert len(client.files.list(purpose="fine-tune-results").data) == 1


def test_completion_under_a_stale_token_is_refused(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    stale = job_row(live_gateway.services, trained).attempt_token
    assert stale is not None
    worker.must_claim(trained, "evaluate")
    response = worker.complete(stale, Completion(outcome=Outcome.FAILED, error_code="x", error_message="y"))
    assert response.status_code == 410
    assert response.json()["error"]["code"] == "lease_lost"
    assert job_row(live_gateway.services, trained).phase == "evaluating"


def test_reported_failure_ends_the_job_with_its_code(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.end(token, Outcome.FAILED, error_code="non_finite_loss", error_message="Loss was NaN at step 3.")
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.message) == ("non_finite_loss", "Loss was NaN at step 3.")


def test_crash_is_tried_again_from_the_last_checkpoint(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    store = live_gateway.services.stores.shared
    for step in (2, 4):
        event = WorkerEvent(type="checkpoint", message=f"Checkpoint {step}", checkpoint=checkpoint(store, step))
        worker.send_events(token, event)
    worker.end(token, Outcome.CRASHED, error_message="killed by signal 9")
    again = worker.must_claim(job_id)
    assert again.attempt == 2
    assert again.resume_from == checkpoint(store, 4)


def test_checkpoint_whose_state_is_lost_is_not_resumed_from(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    store = live_gateway.services.stores.shared
    kept, lost = checkpoint(store, 2), checkpoint(store, 4)
    for record in (kept, lost):
        worker.send_events(token, WorkerEvent(type="checkpoint", message="saved", checkpoint=record))
    store.delete(lost.state)
    worker.end(token, Outcome.CRASHED)
    assert worker.must_claim(job_id).resume_from == kept


def test_crashes_are_capped(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    for _ in range(live_gateway.services.settings.max_attempts):
        worker.end(worker.must_claim(job_id).attempt_token, Outcome.CRASHED, error_message="out of memory")
    assert error_code(live_gateway.services, job_id) == "attempts_exhausted"
    assert worker.claim(job_id) is None


def test_attempts_of_the_evaluation_are_counted_apart(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    worker.end(worker.must_claim(job_id).attempt_token, Outcome.CRASHED)
    train(live_gateway, worker, job_id)
    assert worker.must_claim(job_id, "evaluate").attempt == 1


def test_eviction_does_not_count_as_a_crash(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    for _ in range(live_gateway.services.settings.max_attempts + 2):
        claim = worker.must_claim(job_id)
        assert claim.attempt == 1
        worker.end(claim.attempt_token, Outcome.YIELDED)
    assert job_row(live_gateway.services, job_id).phase == "queued"

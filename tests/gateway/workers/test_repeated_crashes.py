"""A job that crashes twice in a row in the same way ends; what may be gone the next time is tried as often as ever."""

from __future__ import annotations

import pytest
from openai import OpenAI

from gateway.workers.reconciler import reconcile
from policies.contract.tasks import COMPLETION_PATH
from policies.contract.worker_api import Completion, Outcome
from tests.gateway.conftest import WORKER_TOKENS, LiveGateway
from tests.gateway.hand_worker import HandWorker, error_code, job_row, train

SAME, OTHER = "a" * 64, "b" * 64


def crash(worker: HandWorker, job_id: str, signature: str | None) -> None:
    worker.end(
        worker.must_claim(job_id).attempt_token,
        Outcome.CRASHED,
        error_message="the process ended with exit code 1",
        crash_signature=signature,
    )


def phase(gateway: LiveGateway, job_id: str) -> str:
    return job_row(gateway.services, job_id).phase


def test_the_same_crash_twice_in_a_row_ends_the_job(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    crash(worker, job_id, SAME)
    assert phase(live_gateway, job_id) == "queued"
    crash(worker, job_id, SAME)
    assert error_code(live_gateway.services, job_id) == "repeated_failure"
    error = client.fine_tuning.jobs.retrieve(job_id).error
    assert error is not None
    assert error.message == (
        "Two attempts in a row crashed in the same way at the same point, so the job is not tried again; quote "
        f"{job_id} to the operator, whose log has the cause."
    )
    assert worker.claim(job_id) is None


@pytest.mark.parametrize("signatures", [(SAME, OTHER, SAME), (None, None, None), (SAME, None, SAME)])
def test_other_crashes_are_tried_as_often_as_ever(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, signatures: tuple[str | None, ...]
) -> None:
    assert len(signatures) == live_gateway.services.settings.max_attempts
    for signature in signatures:
        crash(worker, job_id, signature)
    assert error_code(live_gateway.services, job_id) == "attempts_exhausted"


def test_a_worker_that_falls_silent_breaks_the_row(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    crash(worker, job_id, SAME)
    worker.must_claim(job_id)
    live_gateway.clock.advance(live_gateway.services.settings.lease_seconds + 1)
    with live_gateway.services.database.transaction() as session:
        assert reconcile(session, live_gateway.services, live_gateway.clock()).expired == 1
    crash(worker, job_id, SAME)
    assert error_code(live_gateway.services, job_id) == "attempts_exhausted"


def test_a_job_that_was_given_back_meanwhile_still_crashed_twice(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    crash(worker, job_id, SAME)
    worker.end(worker.must_claim(job_id).attempt_token, Outcome.YIELDED)
    crash(worker, job_id, SAME)
    assert error_code(live_gateway.services, job_id) == "repeated_failure"


def test_a_crash_of_the_training_is_none_of_the_evaluation(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    crash(worker, job_id, SAME)
    train(live_gateway, worker, job_id)
    claim = worker.must_claim(job_id, "evaluate")
    worker.end(claim.attempt_token, Outcome.CRASHED, crash_signature=SAME)
    assert phase(live_gateway, job_id) == "awaiting_evaluation"
    claim = worker.must_claim(job_id, "evaluate")
    worker.end(claim.attempt_token, Outcome.CRASHED, crash_signature=SAME)
    assert error_code(live_gateway.services, job_id) == "repeated_failure"


def test_a_job_that_is_being_paused_is_paused_and_not_ended(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    crash(worker, job_id, SAME)
    token = worker.must_claim(job_id).attempt_token
    client.fine_tuning.jobs.pause(job_id)
    worker.end(token, Outcome.CRASHED, crash_signature=SAME)
    assert phase(live_gateway, job_id) == "paused"
    client.fine_tuning.jobs.resume(job_id)
    crash(worker, job_id, SAME)
    assert error_code(live_gateway.services, job_id) == "repeated_failure"


@pytest.mark.parametrize("signature", ["", "a" * 63, "a" * 65, "A" * 64, "a" * 64 + "\n", "/srv/secret", 7, ["a" * 64]])
def test_what_is_no_signature_is_refused_and_changes_nothing(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, signature: object
) -> None:
    token = worker.must_claim(job_id).attempt_token
    response = worker._http.post(
        COMPLETION_PATH.format(attempt_token=token),
        json={"outcome": "crashed", "crash_signature": signature},
        headers={"authorization": f"Bearer {WORKER_TOKENS['train']}"},
    )
    assert response.status_code == 400
    job = job_row(live_gateway.services, job_id)
    assert (job.phase, job.crash_signature) == ("training", None)


def test_workers_that_sign_nothing_say_what_they_always_said() -> None:
    """So a gateway of the version before still reads what a newer worker says of all but crashes."""
    completion = Completion(outcome=Outcome.CRASHED, error_message="x")
    assert completion.model_dump(mode="json").keys() == {
        "outcome",
        "record",
        "decision",
        "error_code",
        "error_message",
    }

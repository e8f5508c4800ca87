"""Cancel, pause and resume in every phase, repeated, and as the worker sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob

from policies.contract.worker_api import Outcome, Progress
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, evaluate, job_row, submit, train
from tests.gateway.records import training_record


def phase_of(job: FineTuningJob) -> str:
    extended: Any = job  # Any: `guardrail` is our addition to the client's type
    return str(extended.guardrail["phase"])


def status_of(job: FineTuningJob) -> str:
    """As plain text: `paused` is on the wire, not in the client's type."""
    return job.status


def assert_impossible(call: Callable[[str], FineTuningJob], job_id: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        call(job_id)
    assert error.value.type == "invalid_request_error"
    assert str(error.value.code).startswith("job_cannot_be_")


def test_validating_job_is_cancelled_at_once(client: OpenAI) -> None:
    job = client.fine_tuning.jobs.cancel(submit(client).id)
    assert job.status == "cancelled"
    assert job.finished_at is not None


def test_queued_job_is_cancelled_at_once_and_never_claimed(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"
    assert worker.claim(job_id) is None


def test_running_job_is_cancelled_once_its_worker_has_stopped(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    token = worker.must_claim(job_id).attempt_token
    job = client.fine_tuning.jobs.cancel(job_id)
    assert (job.status, phase_of(job)) == ("running", "cancelling")
    assert worker.heartbeat(token) == "cancel"
    worker.end(token, Outcome.YIELDED)
    assert client.fine_tuning.jobs.retrieve(job_id).status == "cancelled"


@pytest.mark.parametrize("outcome", list(Outcome))
def test_cancelling_job_is_cancelled_whatever_the_worker_answers(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str, outcome: Outcome
) -> None:
    claim, store = worker.must_claim(job_id), live_gateway.services.stores.shared
    client.fine_tuning.jobs.cancel(job_id)
    worker.end(claim.attempt_token, outcome, record=store.put_record(training_record(claim.spec, store)))
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.status, job.fine_tuned_model, job.error) == ("cancelled", None, None)


def test_good_evaluation_releases_nothing_after_a_cancel(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    token = worker.must_claim(trained, "evaluate").attempt_token
    client.fine_tuning.jobs.cancel(trained)
    worker.end(token, Outcome.SUCCEEDED)
    assert client.fine_tuning.jobs.retrieve(trained).status == "cancelled"


def test_repeated_cancel_is_answered_with_the_job(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    token = worker.must_claim(job_id).attempt_token
    assert {phase_of(client.fine_tuning.jobs.cancel(job_id)) for _ in range(2)} == {"cancelling"}
    worker.end(token, Outcome.YIELDED)
    assert {phase_of(client.fine_tuning.jobs.cancel(job_id)) for _ in range(2)} == {"cancelled"}


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_job_that_is_over_can_be_neither_cancelled_nor_paused_nor_resumed(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str, drift: float
) -> None:
    evaluate(live_gateway, worker, trained, drift=drift)
    jobs = client.fine_tuning.jobs
    for call in (jobs.cancel, jobs.pause, jobs.resume):
        assert_impossible(call, trained)


def test_validating_job_cannot_be_paused(client: OpenAI) -> None:
    assert_impossible(client.fine_tuning.jobs.pause, submit(client).id)


def test_queued_job_is_paused_at_once_and_not_claimed(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    assert status_of(client.fine_tuning.jobs.pause(job_id)) == "paused"
    assert worker.claim(job_id) is None


def test_resumed_job_is_queued_again(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    client.fine_tuning.jobs.pause(job_id)
    assert client.fine_tuning.jobs.resume(job_id).status == "queued"
    assert worker.must_claim(job_id).attempt == 1


def test_running_job_is_paused_once_its_worker_has_stopped(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    token = worker.must_claim(job_id).attempt_token
    job = client.fine_tuning.jobs.pause(job_id)
    assert (job.status, phase_of(job)) == ("running", "pausing")
    assert worker.heartbeat(token) == "pause"
    worker.end(token, Outcome.YIELDED)
    assert status_of(client.fine_tuning.jobs.retrieve(job_id)) == "paused"


def test_pause_after_the_last_step_holds_the_job_before_its_evaluation(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    claim, store = worker.must_claim(job_id), live_gateway.services.stores.shared
    client.fine_tuning.jobs.pause(job_id)
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(training_record(claim.spec, store)))
    assert status_of(client.fine_tuning.jobs.retrieve(job_id)) == "paused"
    assert phase_of(client.fine_tuning.jobs.resume(job_id)) == "awaiting_evaluation"


def test_verdict_that_was_under_way_stands_in_spite_of_a_pause(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    train(live_gateway, worker, job_id)
    token = worker.must_claim(job_id, "evaluate").attempt_token
    client.fine_tuning.jobs.pause(job_id)
    worker.end(token, Outcome.FAILED, error_code="evaluation_failed", error_message="No prompts.")
    assert client.fine_tuning.jobs.retrieve(job_id).status == "failed"


def test_pause_is_taken_back_before_the_worker_obeyed(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    token = worker.must_claim(job_id).attempt_token
    client.fine_tuning.jobs.pause(job_id)
    assert phase_of(client.fine_tuning.jobs.resume(job_id)) == "training"
    assert worker.heartbeat(token) == "continue"


def test_worker_that_obeyed_a_pause_taken_back_gives_the_job_to_the_next(
    client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    client.fine_tuning.jobs.pause(job_id)
    client.fine_tuning.jobs.resume(job_id)
    worker.end(token, Outcome.YIELDED)
    assert client.fine_tuning.jobs.retrieve(job_id).status == "queued"


def test_repeated_pause_and_resume_are_answered_with_the_job(client: OpenAI, job_id: str) -> None:
    jobs = client.fine_tuning.jobs
    assert [jobs.pause(job_id).status for _ in range(2)] == ["paused", "paused"]
    assert [jobs.resume(job_id).status for _ in range(2)] == ["queued", "queued"]


def test_paused_job_can_be_cancelled(client: OpenAI, job_id: str) -> None:
    client.fine_tuning.jobs.pause(job_id)
    assert client.fine_tuning.jobs.cancel(job_id).status == "cancelled"


def test_cancelling_job_can_be_neither_paused_nor_resumed(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    worker.must_claim(job_id)
    jobs = client.fine_tuning.jobs
    jobs.cancel(job_id)
    for call in (jobs.pause, jobs.resume):
        assert_impossible(call, job_id)


def test_progress_and_eta_of_the_heartbeat_are_shown_while_it_runs(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.heartbeat(token, Progress(step=3, total_steps=9, stage="training", eta_seconds=60, figures={"kl": 0.1}))
    job: Any = client.fine_tuning.jobs.retrieve(job_id)  # Any: `guardrail` is our addition to the client's type
    assert job.estimated_finish == int(live_gateway.clock.now) + 60
    assert job.guardrail["eta_seconds"] == 60
    assert job.guardrail["progress"]["figures"] == {"kl": 0.1}
    worker.end(token, Outcome.YIELDED)
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.estimated_finish, job.guardrail["progress"]) == (None, None)
    assert job_row(live_gateway.services, job_id).attempts == 0

"""Claims, heartbeats and events: one worker holds a job, and a stale token changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI
from sqlalchemy import func, select

from gateway.tables.statistics import DuplicateDelivery
from gateway.workers.reconciler import reconcile
from policies.contract.worker_api import ClaimRequest, Outcome, Progress, WorkerEvent
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, job_row, spec_of, submit, train

MESSAGE = WorkerEvent(type="message", message="still here")


def lose_lease(gateway: LiveGateway) -> None:
    """Time passes without a heartbeat, and the reconciler looks."""
    gateway.clock.advance(gateway.services.settings.lease_seconds + 1)
    with gateway.services.database.transaction() as session:
        assert reconcile(session, gateway.services, gateway.clock()).expired == 1


def test_claim_carries_the_spec_and_the_terms_of_the_lease(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    claim, settings = worker.must_claim(job_id), live_gateway.services.settings
    assert claim.spec == spec_of(live_gateway.services, job_id)
    assert (claim.kind, claim.attempt, claim.resume_from, claim.training_record) == ("train", 1, None, None)
    assert (claim.heartbeat_seconds, claim.lease_seconds) == (settings.heartbeat_seconds, settings.lease_seconds)


def test_claim_stamps_lease_and_first_heartbeat(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    worker.must_claim(job_id)
    job, now = job_row(live_gateway.services, job_id), live_gateway.clock()
    assert (job.phase, job.worker, job.heartbeat_at) == ("training", "worker-1", now)
    assert job.lease_until == now + live_gateway.services.settings.lease_seconds


def test_claim_of_an_evaluation_carries_the_training_record(
    live_gateway: LiveGateway, worker: HandWorker, trained: str
) -> None:
    claim = worker.must_claim(trained, "evaluate")
    assert claim.training_record == job_row(live_gateway.services, trained).training_record_digest
    assert claim.training_record is not None


def test_of_many_claims_at_once_one_wins_and_the_others_are_counted(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda _: worker.claim(job_id), range(8)))
    assert len([claim for claim in claims if claim is not None]) == 1
    with live_gateway.services.database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(DuplicateDelivery)) == 7


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_job_that_is_still_validated_cannot_be_claimed(client: OpenAI, worker: HandWorker, kind: str) -> None:
    request = ClaimRequest.model_validate({"kind": kind, "job_id": submit(client).id, "worker": "w"})
    assert worker.claim(request.job_id, request.kind) is None


def test_unknown_job_cannot_be_claimed(worker: HandWorker) -> None:
    assert worker.claim("ftjob-nothing") is None


def test_queued_job_cannot_be_claimed_for_evaluation(worker: HandWorker, job_id: str) -> None:
    assert worker.claim(job_id, "evaluate") is None


def test_heartbeat_extends_the_lease_by_the_servers_clock(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    live_gateway.clock.advance(20)
    assert worker.heartbeat(token) == "continue"
    lease = job_row(live_gateway.services, job_id).lease_until
    assert lease == live_gateway.clock() + live_gateway.services.settings.lease_seconds


def test_late_heartbeat_that_nobody_missed_keeps_the_job(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    """The token decides, not the time: the reconciler has not taken the job away yet."""
    token = worker.must_claim(job_id).attempt_token
    live_gateway.clock.advance(1000)
    assert worker.heartbeat(token) == "continue"


def test_unknown_token_is_lost(worker: HandWorker) -> None:
    assert worker.heartbeat("attempt_nothing") == "lost"


def test_worker_whose_lease_ran_out_is_lost_and_writes_nothing(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    lose_lease(live_gateway)
    progress = Progress(step=9, total_steps=9, stage="training")
    assert worker.heartbeat(token, progress) == "lost"
    assert worker.send_events(token, MESSAGE).status_code == 410
    assert job_row(live_gateway.services, job_id).progress is None


def test_worker_whose_job_went_to_another_is_lost(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    first = worker.must_claim(job_id).attempt_token
    lose_lease(live_gateway)
    second = worker.must_claim(job_id).attempt_token
    assert (worker.heartbeat(first), worker.heartbeat(second)) == ("lost", "continue")


def test_attempt_that_completed_is_lost_to_its_late_heartbeat_and_events(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.end(token, Outcome.YIELDED)
    assert worker.heartbeat(token) == "lost"
    response = worker.send_events(token, MESSAGE)
    assert (response.status_code, response.json()["error"]["code"]) == (410, "lease_lost")


def test_progress_event_is_shown_but_not_logged(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    before = len(list(client.fine_tuning.jobs.list_events(job_id)))
    progress = Progress(step=1, total_steps=3, stage="training")
    worker.send_events(token, WorkerEvent(type="progress", message="", progress=progress)).raise_for_status()
    assert len(list(client.fine_tuning.jobs.list_events(job_id))) == before
    assert Progress.model_validate(job_row(live_gateway.services, job_id).progress) == progress


def test_progress_of_the_training_is_not_shown_for_the_evaluation(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.heartbeat(token, Progress(step=3, total_steps=3, stage="training"))
    worker.end(token, Outcome.YIELDED)
    train(live_gateway, worker, job_id)
    worker.must_claim(job_id, "evaluate")
    assert job_row(live_gateway.services, job_id).progress is None

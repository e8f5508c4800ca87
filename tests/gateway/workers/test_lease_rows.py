"""What claims and heartbeats leave in the database."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from openai import OpenAI
from sqlalchemy import select

from gateway.jobs.lifecycle import drop_lease
from gateway.tables.jobs import Job, JobEvent
from gateway.tables.statistics import DuplicateDelivery, PhaseTransition
from gateway.workers.leases import MAX_ETA_SECONDS
from gateway.workers.reconciler import reconcile
from policies.contract.worker_api import Outcome, Progress, WorkerEvent
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, job_row, submit_queued, train
from tests.gateway.records import checkpoint, training_record

STEP = Progress(step=1, total_steps=3, stage="training", eta_seconds=90.7)


def messages(gateway: LiveGateway, job_id: str) -> Sequence[str]:
    with gateway.services.database.transaction() as session:
        rows = select(JobEvent.message).where(JobEvent.job_id == job_id).order_by(JobEvent.sequence)
        return session.scalars(rows).all()


def lose(gateway: LiveGateway) -> None:
    gateway.clock.advance(gateway.services.settings.lease_seconds + 1)
    with gateway.services.database.transaction() as session:
        assert reconcile(session, gateway.services, gateway.clock()).expired == 1


def test_claims_are_numbered_and_told(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    first = worker.must_claim(job_id)
    lose(live_gateway)
    second = worker.must_claim(job_id)

    assert (first.attempt, second.attempt) == (1, 2)
    assert first.attempt_token != second.attempt_token
    assert all(claim.attempt_token.startswith("attempt_") for claim in (first, second))
    assert job_row(live_gateway.services, job_id).attempts == 2
    told = messages(live_gateway, job_id)
    assert {"Fine-tuning job started (attempt 1)", "Fine-tuning job started (attempt 2)"} <= set(told)


def test_claim_takes_one_job_of_those_that_wait(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    other = submit_queued(live_gateway, client)
    worker.must_claim(job_id)

    waiting = job_row(live_gateway.services, other)
    assert (waiting.phase, waiting.attempts, waiting.attempt_token) == ("queued", 0, None)


def test_claim_of_an_evaluation_is_told(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    worker.must_claim(trained, "evaluate")

    assert messages(live_gateway, trained)[-1] == "Safety evaluation started (attempt 1)"


def test_claim_counts_how_long_the_job_waited(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    queued_since = live_gateway.clock()
    live_gateway.clock.advance(7)
    worker.must_claim(job_id)

    with live_gateway.services.database.transaction() as session:
        (row,) = session.scalars(select(PhaseTransition).where(PhaseTransition.phase_to == "training"))
        assert (row.job_id, row.phase_from, row.seconds, row.at) == (job_id, "queued", 7, queued_since + 7)
    assert job_row(live_gateway.services, job_id).phase_since == queued_since + 7


def test_claim_of_what_is_gone_is_counted_with_kind_and_time(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    assert worker.claim(job_id, "evaluate") is None

    with live_gateway.services.database.transaction() as session:
        (row,) = session.scalars(select(DuplicateDelivery))
        assert (row.kind, row.at) == ("evaluate", live_gateway.clock())


def test_checkpoint_is_handed_to_the_next_attempt(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    token = worker.must_claim(job_id).attempt_token
    record = checkpoint(live_gateway.services.stores.shared, 2)
    worker.send_events(token, WorkerEvent(type="checkpoint", message="saved", checkpoint=record)).raise_for_status()
    lose(live_gateway)

    assert worker.must_claim(job_id).resume_from == record


def test_evaluation_of_a_job_with_checkpoints_resumes_from_none(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    claim, store = worker.must_claim(job_id), live_gateway.services.stores.shared
    record = training_record(claim.spec, store, checkpoints=(checkpoint(store, 2),))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=store.put_record(record))

    assert worker.must_claim(job_id, "evaluate").resume_from is None


def test_heartbeat_keeps_time_progress_and_when_it_will_end(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    live_gateway.clock.advance(5)
    worker.heartbeat(token, STEP)

    job, now = job_row(live_gateway.services, job_id), live_gateway.clock()
    assert job.heartbeat_at == now
    assert Progress.model_validate(job.progress) == STEP
    assert job.estimated_finish == int(now + 90.7)


def test_heartbeat_without_progress_leaves_what_is_known(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.heartbeat(token, STEP)
    expected = job_row(live_gateway.services, job_id).estimated_finish
    live_gateway.clock.advance(5)
    worker.heartbeat(token)

    job = job_row(live_gateway.services, job_id)
    assert (Progress.model_validate(job.progress), job.estimated_finish) == (STEP, expected)


def test_progress_that_can_not_say_when_it_ends_takes_the_old_estimate_away(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.heartbeat(token, STEP)
    worker.heartbeat(token, STEP.model_copy(update={"eta_seconds": None}))

    assert job_row(live_gateway.services, job_id).estimated_finish is None


@pytest.mark.parametrize(("wish", "order"), [("pause", "pause"), ("cancel", "cancel")])
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_heartbeat_answers_what_the_tenant_wants(
    live_gateway: LiveGateway,
    client: OpenAI,
    worker: HandWorker,
    request: pytest.FixtureRequest,
    *,
    wish: str,
    order: str,
    kind: str,
) -> None:
    job = request.getfixturevalue("job_id" if kind == "train" else "trained")
    token = worker.must_claim(job, "train" if kind == "train" else "evaluate").attempt_token
    assert worker.heartbeat(token) == "continue"
    getattr(client.fine_tuning.jobs, wish)(job)

    assert worker.heartbeat(token) == order


@pytest.mark.parametrize(("keep_token", "token"), [(True, "attempt_1"), (False, None)])
def test_dropped_lease_keeps_the_token_of_a_completed_attempt_only(keep_token: bool, token: str | None) -> None:
    job = Job(worker="w", lease_until=12.0, attempt_token="attempt_1")
    drop_lease(job, keep_token=keep_token)

    assert (job.worker, job.lease_until, job.attempt_token) == (None, None, token)


def test_job_of_an_earlier_version_is_claimed_by_nobody_and_keeps_no_lease(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    with live_gateway.services.database.transaction() as session:
        session.get_one(Job, job_id).spec_digest = "sha256:" + "0" * 64

    assert worker.claim(job_id) is None
    job = job_row(live_gateway.services, job_id)
    assert (job.phase, job.error_code) == ("failed", "created_by_earlier_version")
    assert (job.worker, job.lease_until, job.attempt_token) == (None, None, None)
    assert job.finished_at == int(live_gateway.clock())
    assert messages(live_gateway, job_id)[-1] == job.error_message


@pytest.mark.parametrize(
    ("eta", "is_told"), [(0.0, True), (0.5, True), (MAX_ETA_SECONDS, True), (MAX_ETA_SECONDS + 1, False), (-0.5, False)]
)
def test_an_end_that_can_not_be_meant_is_not_told(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, *, eta: float, is_told: bool
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.heartbeat(token, STEP.model_copy(update={"eta_seconds": eta}))
    expected = int(live_gateway.clock() + eta) if is_told else None
    assert job_row(live_gateway.services, job_id).estimated_finish == expected


def test_only_the_claim_of_an_evaluation_counts_as_one(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    worker.must_claim(job_id)
    assert job_row(live_gateway.services, job_id).evaluated_at is None
    lose(live_gateway)
    train(live_gateway, worker, job_id)
    worker.must_claim(job_id, "evaluate")
    assert job_row(live_gateway.services, job_id).evaluated_at == live_gateway.clock()


def test_a_full_store_holds_trainings_up_and_no_evaluation(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, trained: str
) -> None:
    queued, free = submit_queued(live_gateway, client), live_gateway.services.stores.shared.free_bytes()
    assert free is not None
    live_gateway.services.settings.min_free_bytes = 2 * free
    assert worker.claim(queued) is None
    assert worker.must_claim(trained, "evaluate").spec.job_id == trained
    with live_gateway.services.database.reading() as session:
        assert session.scalars(select(DuplicateDelivery)).all() == []

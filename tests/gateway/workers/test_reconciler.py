"""The reconciler puts right what no longer moves by itself, and leaves the rest alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from openai import OpenAI
from sqlalchemy import select
from structlog.typing import EventDict

from gateway.jobs.outbox import KEEP_SENT_SECONDS, dispatch
from gateway.jobs.repository import lock_job
from gateway.jobs.validation import take_up
from gateway.tables.jobs import Job, OutboxMessage
from gateway.workers.reconciler import ReconcileSummary, reconcile
from policies.contract.tasks import EVALUATE_ADAPTER, TRAIN_ADAPTER, VALIDATE_FILES
from policies.contract.worker_api import Outcome, WorkerEvent
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, job_row, submit, submit_queued, train
from tests.gateway.records import checkpoint


def look(gateway: LiveGateway) -> ReconcileSummary:
    with gateway.services.database.transaction() as session:
        return reconcile(session, gateway.services, gateway.clock())


def sent_now(gateway: LiveGateway) -> list[tuple[str, list[object]]]:
    """Empties the outbox."""
    sent: list[tuple[str, list[object]]] = []

    def send(task: str, queue: str, arguments: Sequence[object]) -> None:
        sent.append((task, list(arguments)))

    with gateway.services.database.transaction() as session:
        dispatch(session, send)
    return sent


def fall_silent(gateway: LiveGateway) -> ReconcileSummary:
    gateway.clock.advance(gateway.services.settings.lease_seconds + 1)
    return look(gateway)


def wait_for_redispatch(gateway: LiveGateway) -> ReconcileSummary:
    gateway.clock.advance(gateway.services.settings.redispatch_seconds + 1)
    return look(gateway)


def test_working_job_is_left_alone(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    worker.must_claim(job_id)
    live_gateway.clock.advance(live_gateway.services.settings.lease_seconds)
    assert look(live_gateway) == ReconcileSummary(0, 0, 0, 0)


def test_silent_training_goes_on_from_its_last_checkpoint(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    record = checkpoint(live_gateway.services.stores.shared, 2)
    worker.send_events(token, WorkerEvent(type="checkpoint", message="saved", checkpoint=record))
    sent_now(live_gateway)
    assert fall_silent(live_gateway).expired == 1
    assert sent_now(live_gateway) == [(TRAIN_ADAPTER, [job_id, 2])]
    claim = worker.must_claim(job_id)
    assert (claim.attempt, claim.resume_from) == (2, record)


def test_after_a_crash_the_next_attempt_waits_and_a_later_one_longer(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    """A store that is away for some seconds must not cost all attempts: 2 s after the first crash, then 15."""
    for attempt, pause in ((2, 2), (3, 15)):
        token = worker.must_claim(job_id).attempt_token
        sent_now(live_gateway)
        worker.end(token, Outcome.CRASHED, error_message="the store does not answer")
        for seconds, expected in ((pause - 0.1, []), (0.2, [(TRAIN_ADAPTER, [job_id, attempt])])):
            live_gateway.clock.advance(seconds)
            look(live_gateway)
            assert sent_now(live_gateway) == expected


def test_silent_evaluation_is_evaluated_again(live_gateway: LiveGateway, worker: HandWorker, trained: str) -> None:
    worker.must_claim(trained, "evaluate")
    sent_now(live_gateway)
    fall_silent(live_gateway)
    assert job_row(live_gateway.services, trained).phase == "awaiting_evaluation"
    assert sent_now(live_gateway) == [(EVALUATE_ADAPTER, [trained, 2])]


def test_silence_is_capped(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str) -> None:
    for _ in range(live_gateway.services.settings.max_attempts):
        worker.must_claim(job_id)
        fall_silent(live_gateway)
    error = client.fine_tuning.jobs.retrieve(job_id).error
    assert error is not None
    assert error.code == "attempts_exhausted"
    assert "Nothing was heard from the worker for 31 s." in error.message


@pytest.mark.parametrize(("wish", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_silent_worker_cannot_hold_up_a_wish(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str, wish: str, status: str
) -> None:
    worker.must_claim(job_id)
    jobs = client.fine_tuning.jobs
    {"cancel": jobs.cancel, "pause": jobs.pause}[wish](job_id)
    fall_silent(live_gateway)
    assert jobs.retrieve(job_id).status == status


def test_running_job_without_a_lease_is_not_left_standing(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    worker.must_claim(job_id)
    with live_gateway.services.database.transaction() as session:
        session.merge(job_row_without_lease(live_gateway, job_id))
    assert look(live_gateway).expired == 1
    assert job_row(live_gateway.services, job_id).phase == "queued"


def job_row_without_lease(gateway: LiveGateway, job_id: str) -> object:
    job = job_row(gateway.services, job_id)
    job.lease_until = None
    return job


def test_second_look_finds_nothing(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    worker.must_claim(job_id)
    assert fall_silent(live_gateway).expired == 1
    assert look(live_gateway) == ReconcileSummary(0, 0, 0, 0)


def test_queued_job_that_nobody_claimed_is_sent_again(live_gateway: LiveGateway, job_id: str) -> None:
    sent_now(live_gateway)
    assert wait_for_redispatch(live_gateway).redispatched == 1
    assert look(live_gateway).redispatched == 0
    assert sent_now(live_gateway) == [(TRAIN_ADAPTER, [job_id, 1])]


def test_trained_job_that_nobody_evaluates_is_sent_again(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    train(live_gateway, worker, job_id)
    sent_now(live_gateway)
    wait_for_redispatch(live_gateway)
    assert sent_now(live_gateway) == [(EVALUATE_ADAPTER, [job_id, 1])]


def test_job_whose_validation_was_lost_is_sent_again(live_gateway: LiveGateway, client: OpenAI) -> None:
    job_id = submit(client).id
    sent_now(live_gateway)
    wait_for_redispatch(live_gateway)
    assert sent_now(live_gateway) == [(VALIDATE_FILES, [job_id])]


@pytest.mark.parametrize("wish", ["cancel", "pause"])
def test_job_that_shall_not_run_is_not_sent(live_gateway: LiveGateway, client: OpenAI, job_id: str, wish: str) -> None:
    jobs = client.fine_tuning.jobs
    {"cancel": jobs.cancel, "pause": jobs.pause}[wish](job_id)
    assert wait_for_redispatch(live_gateway).redispatched == 0


def test_clock_that_runs_back_takes_no_job_away(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> None:
    token = worker.must_claim(job_id).attempt_token
    live_gateway.clock.advance(-10_000)
    assert look(live_gateway) == ReconcileSummary(0, 0, 0, 0)
    assert worker.heartbeat(token) == "continue"


def test_a_job_whose_row_is_broken_keeps_no_other_from_being_put_right(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, quiet_log: list[EventDict]
) -> None:
    broken, sound = submit_queued(live_gateway, client), submit_queued(live_gateway, client)
    for job_id in (broken, sound):
        worker.must_claim(job_id)
    with live_gateway.services.database.transaction() as session:
        session.get_one(Job, broken).spec = {}
    live_gateway.clock.advance(1000)
    assert look(live_gateway).expired == 1
    assert job_row(live_gateway.services, sound).phase == "queued"
    assert [entry["job"] for entry in quiet_log if entry["event"] == "job_not_reconciled"] == [broken]


def test_messages_that_were_sent_long_ago_are_forgotten(live_gateway: LiveGateway, job_id: str) -> None:
    sent_now(live_gateway)
    live_gateway.clock.advance(KEEP_SENT_SECONDS + 1)
    assert look(live_gateway).forgotten_messages == 2
    with live_gateway.services.database.transaction() as session:
        assert [message.sent for message in session.scalars(select(OutboxMessage))] == [False]


def test_validation_whose_validator_died_is_sent_again_when_its_lease_ran_out(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    """Long before a message counts as lost, and once."""
    job_id = submit(client).id
    sent_now(live_gateway)
    with live_gateway.services.database.transaction() as session:
        job = lock_job(session, job_id)
        assert job is not None
        assert take_up(session, live_gateway.services, job) is not None
    assert live_gateway.services.settings.lease_seconds + 1 < live_gateway.services.settings.redispatch_seconds
    assert fall_silent(live_gateway).expired == 1
    assert sent_now(live_gateway) == [(VALIDATE_FILES, [job_id])]
    assert look(live_gateway) == ReconcileSummary(0, 0, 0, 0)


def test_silence_is_noticed_although_the_clock_was_set_back(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    worker.must_claim(job_id)
    live_gateway.clock.advance(-3600)
    assert look(live_gateway).expired == 0
    assert fall_silent(live_gateway).expired == 1


def test_lost_message_is_sent_again_although_the_clock_was_set_back(live_gateway: LiveGateway, job_id: str) -> None:
    sent_now(live_gateway)
    live_gateway.clock.advance(-3600)
    assert look(live_gateway).redispatched == 1
    assert sent_now(live_gateway) == [(TRAIN_ADAPTER, [job_id, 1])]

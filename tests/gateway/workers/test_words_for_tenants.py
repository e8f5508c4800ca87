"""What a tenant reads of a worker's words: one line, no traceback, no place on the operator's machines."""

from __future__ import annotations

import httpx
import pytest
from openai import OpenAI

from gateway.workers.reconciler import reconcile
from policies.contract.worker_api import Outcome, Progress, WorkerEvent
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker

NASTY = (
    "can't read '/srv/secret folder/acme/model.json'\n"
    "  from s3://secret-bucket/secret/jobs or file:///srv/secret/x\n"
    'Traceback (most recent call last):\n  File "/opt/secret/trainer/run.py", line 3, in <module>\nValueError: secret'
)


def everything_shown(gateway: LiveGateway, client: OpenAI, job_id: str) -> str:
    """All that the API says of a job, with its events."""
    headers = {"authorization": f"Bearer {client.api_key}"}
    url = f"{gateway.url}/v1/fine_tuning/jobs/{job_id}"
    return "".join(httpx.get(path, headers=headers).raise_for_status().text for path in (url, f"{url}/events"))


def test_neither_events_nor_progress_nor_the_end_show_a_place(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    worker.send_events(token, WorkerEvent(type="message", message=NASTY, data={"where": NASTY})).raise_for_status()
    worker.heartbeat(token, Progress(step=1, total_steps=2, stage=NASTY))
    while_it_ran = everything_shown(live_gateway, client, job_id)
    worker.end(token, Outcome.FAILED, error_code="training_failed", error_message=NASTY)
    shown = while_it_ran + everything_shown(live_gateway, client, job_id)
    assert "can't read '…/model.json'" in shown
    assert "secret" not in shown
    error = client.fine_tuning.jobs.retrieve(job_id).error
    assert error is not None
    assert error.message == "can't read '…/model.json' from s3:…/jobs or file:…/x"


@pytest.mark.parametrize("message", [NASTY, NASTY.partition("Traceback")[2], None])
def test_a_crash_shows_no_place(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str, message: str | None
) -> None:
    for _ in range(live_gateway.services.settings.max_attempts):
        worker.end(worker.must_claim(job_id).attempt_token, Outcome.CRASHED, error_message=message)
    shown = everything_shown(live_gateway, client, job_id)
    assert "attempts_exhausted" in shown
    assert "run.py" not in shown
    assert "/srv" not in shown


def test_a_worker_that_fell_silent_is_not_named(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    """Its name is that of a machine."""
    worker.must_claim(job_id)
    live_gateway.clock.advance(live_gateway.services.settings.lease_seconds + 1)
    with live_gateway.services.database.transaction() as session:
        reconcile(session, live_gateway.services, live_gateway.clock())
    shown = everything_shown(live_gateway, client, job_id)
    assert "Nothing was heard from the worker for" in shown
    assert worker.name not in shown


def test_a_record_that_can_not_be_read_shows_none_of_its_content_lines(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    record = live_gateway.services.stores.of_job(job_id).put_bytes(b'{"spec": "/srv/secret/spec.json"}')
    worker.end(worker.must_claim(job_id).attempt_token, Outcome.SUCCEEDED, record=record)
    error = client.fine_tuning.jobs.retrieve(job_id).error
    assert error is not None
    assert error.code == "integrity_error"
    assert "\n" not in error.message
    assert "/srv/secret" not in error.message

"""Jobs, events and checkpoints as the openai client lists them, and the walls between tenants."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from policies.contract.worker_api import WorkerEvent
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, submit, upload
from tests.gateway.records import checkpoint


@pytest.fixture
def five_jobs(client: OpenAI, live_gateway: LiveGateway) -> list[str]:
    """Ids, newest first; a second lies between two."""
    ids: list[str] = []
    file_id = upload(client)
    for number in range(5):
        ids.insert(0, submit(client, training_file=file_id, metadata={"n": str(number % 2), 'a b"c': "x"}).id)
        live_gateway.clock.advance(1)
    return ids


def test_iterating_walks_all_pages_newest_first(client: OpenAI, five_jobs: list[str]) -> None:
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2)] == five_jobs


def test_page_says_whether_there_is_more(client: OpenAI, five_jobs: list[str]) -> None:
    first = client.fine_tuning.jobs.list(limit=4)
    assert (len(first.data), first.has_more) == (4, True)
    last = client.fine_tuning.jobs.list(limit=4, after=first.data[-1].id)
    assert ([job.id for job in last.data], last.has_more) == (five_jobs[4:], False)


@pytest.mark.asyncio
async def test_async_client_iterates_too(live_gateway: LiveGateway, client: OpenAI, five_jobs: list[str]) -> None:
    async with AsyncOpenAI(base_url=f"{live_gateway.url}/v1", api_key=client.api_key, max_retries=0) as other:
        assert [job.id async for job in other.fine_tuning.jobs.list(limit=2)] == five_jobs


def test_metadata_filter(client: OpenAI, five_jobs: list[str]) -> None:
    found = client.fine_tuning.jobs.list(metadata={"n": "1"}, limit=1)
    assert [job.id for job in found] == [five_jobs[1], five_jobs[3]]


def test_metadata_filter_with_an_odd_key(client: OpenAI, live_gateway: LiveGateway) -> None:
    job = submit(client, metadata={"a.b c[d]": "x", "it's": "y"})
    submit(client, metadata={"other": "x"})
    for filter_ in ({"a.b c[d]": "x"}, {"it's": "y"}):
        assert [found.id for found in client.fine_tuning.jobs.list(metadata=filter_)] == [job.id]


def test_metadata_filter_matches_the_empty_value(client: OpenAI) -> None:
    empty = submit(client, metadata={"k": ""})
    submit(client, metadata={"k": "v"})
    assert [job.id for job in client.fine_tuning.jobs.list(metadata={"k": ""})] == [empty.id]


def test_metadata_null_finds_jobs_without(client: OpenAI) -> None:
    without = submit(client)
    submit(client, metadata={})
    submit(client, metadata={"k": "v"})
    found = client.fine_tuning.jobs.list(extra_query={"metadata": "null"})
    assert [job.id for job in found] == [without.id]


def test_metadata_filters_that_cannot_be_answered_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.list(extra_query={"metadata": "x"})
    assert error.value.param == "metadata"


@pytest.mark.parametrize("key", ['a"b', "a\\b", "a\tb", "ключ"])
def test_metadata_is_found_by_any_key(client: OpenAI, key: str) -> None:
    job = submit(client, metadata={key: "v"})
    submit(client, metadata={"other": "v"})
    assert [found.id for found in client.fine_tuning.jobs.list(metadata={key: "v"})] == [job.id]


@pytest.mark.parametrize("limit", [0, 101])
def test_limit_out_of_range_is_refused(client: OpenAI, limit: int) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.fine_tuning.jobs.list(limit=limit)
    assert error.value.param == "limit"


def test_other_tenants_see_nothing(live_gateway: LiveGateway, client: OpenAI) -> None:
    job, jobs = submit(client), live_gateway.client(live_gateway.tenant_key("other")).fine_tuning.jobs
    assert list(jobs.list()) == []
    calls = (
        jobs.retrieve,
        jobs.cancel,
        jobs.pause,
        jobs.resume,
        jobs.list_events,
        jobs.checkpoints.list,
    )
    for call in calls:
        with pytest.raises(openai.NotFoundError) as error:
            call(job.id)
        assert error.value.code == "job_not_found"


def test_cursor_of_another_tenant_is_refused(live_gateway: LiveGateway, client: OpenAI) -> None:
    job, stranger = submit(client), live_gateway.client(live_gateway.tenant_key("other"))
    with pytest.raises(openai.BadRequestError) as error:
        stranger.fine_tuning.jobs.list(after=job.id)
    assert error.value.param == "after"


def test_unknown_job_is_not_found(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.fine_tuning.jobs.retrieve("ftjob-nothing")
    assert error.value.param == "fine_tuning_job_id"


def test_events_are_listed_newest_first(client: OpenAI) -> None:
    job = submit(client)
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=1))
    assert [event.message for event in events] == [
        f"Validating training file: {job.training_file}",
        f"Created fine-tuning job: {job.id}",
    ]
    assert {(event.object, event.type, event.level) for event in events} == {
        ("fine_tuning.job.event", "message", "info")
    }


def test_metrics_of_the_worker_become_metrics_events(client: OpenAI, worker: HandWorker, job_id: str) -> None:
    token = worker.must_claim(job_id).attempt_token
    figures: dict[str, float | str | int | None] = {"step": 1, "train_loss": 2.5}
    worker.send_events(
        token, WorkerEvent(type="metrics", message="Step 1/3: training loss=2.50", data=figures)
    ).raise_for_status()
    newest = client.fine_tuning.jobs.list_events(job_id, limit=1).data[0]
    assert (newest.type, newest.message, newest.data) == ("metrics", "Step 1/3: training loss=2.50", figures)


def test_checkpoints_are_listed_newest_first(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token, store = worker.must_claim(job_id).attempt_token, live_gateway.services.stores.shared
    events = [WorkerEvent(type="checkpoint", message="saved", checkpoint=checkpoint(store, step)) for step in (2, 4, 6)]
    worker.send_events(token, *events).raise_for_status()
    found = list(client.fine_tuning.jobs.checkpoints.list(job_id, limit=2))
    assert [row.step_number for row in found] == [6, 4, 2]
    assert found[0].fine_tuned_model_checkpoint == f"ft:smollm2-135m-instruct:acme::{job_id[-8:]}:ckpt-step-6"
    assert found[0].metrics.train_loss == pytest.approx(2 / 6)
    assert found[0].fine_tuning_job_id == job_id


def test_checkpoint_of_an_unreleased_job_is_not_released(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token, store = worker.must_claim(job_id).attempt_token, live_gateway.services.stores.shared
    worker.send_events(token, WorkerEvent(type="checkpoint", message="saved", checkpoint=checkpoint(store, 2)))
    (row,) = client.fine_tuning.jobs.checkpoints.list(job_id)
    extended: Any = row  # Any: `guardrail` is our addition to the client's type
    assert extended.guardrail == {"released": False, "model": None}
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(row.fine_tuned_model_checkpoint)


def test_step_that_is_repeated_replaces_its_checkpoint(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, job_id: str
) -> None:
    token, store = worker.must_claim(job_id).attempt_token, live_gateway.services.stores.shared
    first = checkpoint(store, 2)
    for record in (first, first.model_copy(update={"metrics": {"step": 2.0, "train_loss": 0.25}})):
        worker.send_events(token, WorkerEvent(type="checkpoint", message="saved", checkpoint=record))
    (row,) = client.fine_tuning.jobs.checkpoints.list(job_id)
    assert row.metrics.train_loss == 0.25


@pytest.mark.parametrize("path", ["claims", "attempts/x/heartbeat", "attempts/x/events", "attempts/x/completion"])
def test_tenants_cannot_reach_the_internal_api(live_gateway: LiveGateway, client: OpenAI, path: str) -> None:
    headers = {"authorization": f"Bearer {client.api_key}"}
    response = httpx.post(f"{live_gateway.url}/internal/v1/{path}", json={}, headers=headers)
    assert response.status_code == 401

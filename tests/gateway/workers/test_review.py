"""A policy that wants a person to look at what the gate cannot decide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from gateway.settings import GatewaySettings
from tests.gateway.conftest import LiveGateway, gateway_settings, run_gateway
from tests.gateway.hand_worker import HandWorker, evaluate, job_row, submit_queued, train
from tests.gateway.policy_variants import variant_of_baseline


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> GatewaySettings:
    """The preset `baseline` as a policy `reviewed` of the operator's, with `on_inconclusive: review`."""
    folder = variant_of_baseline(tmp_path, "reviewed", on_inconclusive="review")
    return gateway_settings(tmp_path, database_url=database_url, policy_dir=folder)


@pytest.fixture
def live_gateway(settings: GatewaySettings) -> Iterator[LiveGateway]:
    with run_gateway(settings) as gateway:
        yield gateway


@pytest.fixture
def client(live_gateway: LiveGateway) -> OpenAI:
    return live_gateway.client(live_gateway.tenant_key(policy="reviewed"))


@pytest.fixture
def doubtful(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> str:
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id, half_width=0.5)
    return job_id


def test_doubtful_adapter_waits_for_a_reviewer_without_a_name(
    live_gateway: LiveGateway, client: OpenAI, doubtful: str
) -> None:
    job = client.fine_tuning.jobs.retrieve(doubtful)
    assert (job.status, job.fine_tuned_model, job.error) == ("running", None, None)
    row = job_row(live_gateway.services, doubtful)
    assert (row.phase, row.decision) == ("awaiting_review", "inconclusive")


def test_review_is_asked_for_in_the_log(client: OpenAI, doubtful: str) -> None:
    last = client.fine_tuning.jobs.list_events(doubtful, limit=1).data[0]
    assert (last.level, last.message) == ("warn", "The safety check could not decide; a reviewer must.")


def test_job_under_review_can_be_cancelled_but_not_paused(client: OpenAI, doubtful: str) -> None:
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.pause(doubtful)
    assert client.fine_tuning.jobs.cancel(doubtful).status == "cancelled"

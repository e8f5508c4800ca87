"""A worker played by hand, and jobs in the phases that tests begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import HandWorker, submit_queued, train


@pytest.fixture
def worker(live_gateway: LiveGateway) -> Iterator[HandWorker]:
    worker = HandWorker(live_gateway)
    yield worker
    worker.close()


@pytest.fixture
def job_id(live_gateway: LiveGateway, client: OpenAI) -> str:
    return submit_queued(live_gateway, client)


@pytest.fixture
def trained(live_gateway: LiveGateway, worker: HandWorker, job_id: str) -> str:
    train(live_gateway, worker, job_id)
    return job_id

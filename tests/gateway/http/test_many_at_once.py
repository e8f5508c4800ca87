"""Many requests at once: none is lost, and neither health checks nor workers wait for them."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import pytest
from sqlalchemy import text

from gateway.db import MAX_CONNECTIONS
from gateway.dependencies import SessionDep
from gateway.routes import REQUEST_THREADS, WORKER_THREADS, Route
from policies.contract.tasks import CLAIMS_PATH
from policies.contract.worker_api import ClaimRequest
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import upload

AT_ONCE = 100
"""This many stalled a gateway whose threads waited for connections that waited for threads."""


def test_each_thread_has_a_connection() -> None:
    from anyio import to_thread

    async def default_threads() -> float:
        return to_thread.current_default_thread_limiter().total_tokens

    assert asyncio.run(default_threads()) == REQUEST_THREADS
    assert REQUEST_THREADS + WORKER_THREADS <= MAX_CONNECTIONS


def test_creating_and_listing_at_once(live_gateway: LiveGateway) -> None:
    live_gateway.services.settings.jobs_under_way = AT_ONCE
    key = live_gateway.tenant_key()
    file_id = upload(live_gateway.client(key))
    body = {"model": "smollm2-135m-instruct", "training_file": file_id}

    async def all_at_once() -> Counter[int]:
        limits = httpx.Limits(max_connections=2 * AT_ONCE)
        headers = {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=live_gateway.url, headers=headers, limits=limits, timeout=60) as http:
            calls = [http.post("/v1/fine_tuning/jobs", json=body) for _ in range(AT_ONCE)]
            calls += [http.get("/v1/fine_tuning/jobs") for _ in range(AT_ONCE)]
            return Counter(answer.status_code for answer in await asyncio.gather(*calls))

    assert asyncio.run(all_at_once()) == {200: 2 * AT_ONCE}


def test_creating_at_once_with_a_key_each(live_gateway: LiveGateway) -> None:
    """Rows that refer to the tenant are written before its jobs are counted."""
    live_gateway.services.settings.jobs_under_way = AT_ONCE
    key = live_gateway.tenant_key()
    body = {"model": "smollm2-135m-instruct", "training_file": upload(live_gateway.client(key))}

    async def all_at_once() -> Counter[int]:
        headers, limits = {"authorization": f"Bearer {key}"}, httpx.Limits(max_connections=AT_ONCE)
        async with httpx.AsyncClient(base_url=live_gateway.url, headers=headers, limits=limits, timeout=60) as http:
            path = "/v1/fine_tuning/jobs"
            calls = [http.post(path, json=body, headers={"idempotency-key": f"k{n}"}) for n in range(AT_ONCE)]
            return Counter(answer.status_code for answer in await asyncio.gather(*calls))

    assert asyncio.run(all_at_once()) == {200: AT_ONCE}


def test_an_asynchronous_endpoint_gets_no_session() -> None:
    """Nobody would commit what it wrote."""

    async def endpoint(session: SessionDep) -> None: ...

    with pytest.raises(TypeError, match="endpoint is asynchronous"):
        Route("/", endpoint)


LOCKS = {"sqlite": "SELECT 1", "postgresql": "LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE"}
"""What keeps requests of tenants waiting: SQLite has one writer, and every transaction here means to write."""


def test_neither_health_nor_workers_wait_for_tenants(live_gateway: LiveGateway) -> None:
    """Every thread of tenants' requests, and as many requests behind them, wait for a lock that this test holds."""
    key, engine = live_gateway.tenant_key(), live_gateway.services.database.engine
    claim = ClaimRequest(kind="train", job_id="ftjob-none", worker="w").model_dump(mode="json")
    worker = live_gateway.worker_headers()

    async def while_locked() -> None:
        tenants = httpx.AsyncClient(base_url=live_gateway.url, headers={"authorization": f"Bearer {key}"}, timeout=60)
        others = httpx.AsyncClient(base_url=live_gateway.url, timeout=60)
        async with tenants, others:
            with engine.connect() as connection:
                connection.execute(text(LOCKS[engine.dialect.name]))
                waiting = [asyncio.create_task(tenants.get("/v1/files")) for _ in range(2 * REQUEST_THREADS)]
                await asyncio.sleep(0.5)
                assert (await others.get("/healthz")).is_success
                working = asyncio.create_task(others.post(CLAIMS_PATH, json=claim, headers=worker))
                if engine.dialect.name == "postgresql":
                    assert (await working).status_code == 204
                assert not any(task.done() for task in waiting)
            assert (await working).status_code == 204
            assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}

    asyncio.run(while_locked())

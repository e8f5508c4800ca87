"""Free validations that many ask for at once cost nobody else a thread or a connection."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.gateway.conftest import LiveGateway, chat_jsonl
from tests.gateway.hand_worker import HandWorker, submit_queued, upload


def test_many_free_validations_leave_heartbeats_untouched(live_gateway: LiveGateway) -> None:
    """45 at once: heartbeats took 22 s, against a lease of 30. Now few are read, and the others told to come again."""
    key = live_gateway.tenant_key()
    client, worker = live_gateway.client(key), HandWorker(live_gateway)
    token = worker.must_claim(submit_queued(live_gateway, client)).attempt_token
    url = f"{live_gateway.url}/v1/guardrail/files/{upload(client, chat_jsonl(5000))}/validate"
    headers = {"authorization": f"Bearer {key}"}

    def validate(_: int) -> httpx.Response:
        return http.post(url, headers=headers)

    # no certificates, which take longer to read than the file
    limits = httpx.Limits(max_connections=45)
    with (
        httpx.Client(verify=False, timeout=120, trust_env=False, limits=limits) as http,
        ThreadPoolExecutor(45) as pool,
    ):
        answers = [pool.submit(validate, n) for n in range(45)]
        while not all(answer.done() for answer in answers):
            assert worker.heartbeat(token) == "continue"
            time.sleep(0.02)
    worker.close()
    found = Counter(answer.result().status_code for answer in answers)
    assert set(found) == {200, 429}
    assert found[200] >= 5
    refused = next(answer.result() for answer in answers if answer.result().status_code == 429)
    assert refused.headers["retry-after"] == "5"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"

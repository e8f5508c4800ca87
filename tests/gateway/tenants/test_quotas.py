"""One tenant's share: requests, jobs, evaluations, bytes and tokens, each refused by the name of its limit."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
from openai import OpenAI, RateLimitError
from sqlalchemy import event, select

from gateway.errors import TooManyRequests
from gateway.files.service import delete_expired_files
from gateway.files.uploads_under_way import UploadsUnderWay
from gateway.tables.tenancy import Tenant
from gateway.tenants.request_limits import RequestLimits
from gateway.workers.reconciler import reconcile
from tests.gateway.conftest import LiveGateway, ManualClock, chat_jsonl
from tests.gateway.hand_worker import HandWorker, error_code, evaluate, job_row, submit, submit_queued, train, upload


@pytest.fixture
def other(live_gateway: LiveGateway) -> OpenAI:
    """Another tenant, to whom nothing of this matters."""
    return live_gateway.client(live_gateway.tenant_key("globex"))


@pytest.fixture
def worker(live_gateway: LiveGateway) -> Iterator[HandWorker]:
    worker = HandWorker(live_gateway)
    yield worker
    worker.close()


def test_a_bucket_lets_through_a_burst_and_then_an_even_flow() -> None:
    """Four a minute: four at once, then one every 15 s."""
    clock = ManualClock(0.0)
    limits = RequestLimits(4, clock)
    assert [limits.take("key_a").remaining for _ in range(4)] == [3, 2, 1, 0]
    with pytest.raises(TooManyRequests, match="requests_per_minute") as refused:
        limits.take("key_a")
    assert refused.value.headers == {"retry-after": "15", "retry-after-ms": "15000"}
    assert limits.take("key_b").remaining == 3
    clock.advance(14.9)
    with pytest.raises(TooManyRequests):
        limits.take("key_a")
    clock.advance(0.1)
    assert limits.take("key_a").reset_seconds == pytest.approx(60)
    clock.advance(1e6)
    assert limits.take("key_a").remaining == 3


def test_a_clock_that_is_set_back_locks_no_key_out() -> None:
    clock = ManualClock(1e6)
    limits = RequestLimits(4, clock)
    limits.take("key_a")
    clock.advance(-1e5)
    assert [limits.take("key_a").remaining for _ in range(4)] == [3, 2, 1, 0]
    with pytest.raises(TooManyRequests):
        limits.take("key_a")


def test_a_key_that_runs_wild_is_slowed_and_told(live_gateway: LiveGateway, client: OpenAI, other: OpenAI) -> None:
    key = client.api_key
    with httpx.Client(base_url=live_gateway.url, headers={"authorization": f"Bearer {key}"}) as http:
        first = http.get("/v1/files")
        assert first.headers["x-ratelimit-limit-requests"] == "600"
        assert first.headers["x-ratelimit-remaining-requests"] == "599"
        assert first.headers["x-ratelimit-reset-requests"] == "0.100s"
        answers = [http.get("/v1/models") for _ in range(600)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 1
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert "requests_per_minute" in refused[0].json()["error"]["message"]
    assert int(refused[0].headers["retry-after-ms"]) == 1000
    assert other.models.list().data


def test_jobs_under_way_are_limited(live_gateway: LiveGateway, client: OpenAI, other: OpenAI) -> None:
    live_gateway.services.settings.jobs_under_way = 2
    first = submit(client).id
    submit(client)
    with pytest.raises(RateLimitError, match="jobs_under_way") as refused:
        submit(client)
    assert refused.value.code == "quota_exceeded"
    submit(other)
    client.fine_tuning.jobs.cancel(first)
    submit(client)


def test_evaluations_a_day_are_limited(live_gateway: LiveGateway, client: OpenAI, worker: HandWorker) -> None:
    live_gateway.services.settings.evaluations_per_day = 1
    job_id = submit_queued(live_gateway, client)
    train(live_gateway, worker, job_id)
    evaluate(live_gateway, worker, job_id)
    with pytest.raises(RateLimitError, match="evaluations_per_day"):
        submit(client)
    live_gateway.clock.advance(86401)
    submit(client)


def test_stored_bytes_are_limited(live_gateway: LiveGateway, client: OpenAI, other: OpenAI) -> None:
    content = chat_jsonl()
    live_gateway.services.settings.stored_bytes = 2 * len(content)
    first = upload(client, content)
    upload(client, content)
    with pytest.raises(RateLimitError, match="stored_bytes"):
        upload(client, content)
    upload(other, content)
    client.files.delete(first)
    upload(client, content)


def test_what_is_stored_is_known_without_reading_a_file(live_gateway: LiveGateway, client: OpenAI) -> None:
    asked: list[str] = []
    engine = live_gateway.services.database.engine
    event.listen(engine, "before_cursor_execute", lambda *each: asked.append(each[2]))
    upload(client)
    assert any("stored_bytes" in statement for statement in asked)
    assert [statement for statement in asked if "sum(" in statement.lower()] == []


def test_a_file_that_is_deleted_by_many_at_once_is_taken_off_once(live_gateway: LiveGateway, client: OpenAI) -> None:
    kept, content = chat_jsonl(), chat_jsonl(13)
    upload(client, kept)
    file = upload(client, content)
    assert stored(live_gateway) == len(kept) + len(content)
    headers = {"authorization": f"Bearer {client.api_key}"}
    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(lambda _: httpx.delete(f"{live_gateway.url}/v1/files/{file}", headers=headers), range(8)))
    assert {answer.status_code for answer in codes} <= {200, 404}
    assert stored(live_gateway) == len(kept)


def test_expired_files_are_taken_off_when_they_are_deleted(live_gateway: LiveGateway, client: OpenAI) -> None:
    content = chat_jsonl()
    expires = {"anchor": "created_at", "seconds": 3600}
    client.files.create(file=("a.jsonl", content), purpose="fine-tune", expires_after=expires)  # type: ignore[arg-type]  # as it is
    upload(client, content)
    live_gateway.clock.advance(3601)
    assert delete_expired_files(live_gateway.services) == 1
    assert delete_expired_files(live_gateway.services) == 0
    assert stored(live_gateway) == len(content)


def stored(gateway: LiveGateway) -> int:
    """What the tenant acme is said to store."""
    with gateway.services.database.transaction() as session:
        return session.scalars(select(Tenant.stored_bytes).where(Tenant.name == "acme")).one()


def test_a_refused_upload_leaves_no_bytes(live_gateway: LiveGateway, client: OpenAI) -> None:
    live_gateway.services.settings.stored_bytes = 1024
    with pytest.raises(RateLimitError, match="stored_bytes"):
        upload(client, b"x" * 1025)
    assert list(live_gateway.services.stores.files.stored()) == []


def test_an_upload_that_announces_too_much_is_not_read(live_gateway: LiveGateway, client: OpenAI) -> None:
    """The answer comes although nothing of the body was sent."""
    live_gateway.services.settings.stored_bytes = 1024
    address = urlsplit(live_gateway.url)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {client.api_key}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {1 << 20}\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(head.encode())
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 429")


def test_uploads_under_way_are_limited() -> None:
    uploads = UploadsUnderWay(2)
    with ExitStack() as under_way:
        for tenant in ("acme", "acme", "globex"):
            under_way.enter_context(uploads.one_more(tenant))
        with pytest.raises(TooManyRequests, match="uploads_at_once"):
            under_way.enter_context(uploads.one_more("acme"))
    with uploads.one_more("acme"):
        pass


def test_an_upload_too_many_is_refused(live_gateway: LiveGateway, client: OpenAI, other: OpenAI) -> None:
    uploads = live_gateway.app.state.uploads
    with live_gateway.services.database.reading() as session:
        tenant_id = session.scalars(select(Tenant.id).where(Tenant.name == "acme")).one()
    with ExitStack() as under_way:
        for _ in range(live_gateway.services.settings.uploads_at_once):
            under_way.enter_context(uploads.one_more(tenant_id))
        with pytest.raises(RateLimitError, match="uploads_at_once"):
            upload(client)
        upload(other)
    upload(client)


def test_tokens_of_a_job_are_limited(live_gateway: LiveGateway, client: OpenAI) -> None:
    live_gateway.services.settings.job_tokens = 100
    job_id = submit_queued(live_gateway, client)
    assert error_code(live_gateway.services, job_id) == "token_limit_exceeded"


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_an_attempt_that_never_ends_is_ended(
    live_gateway: LiveGateway, client: OpenAI, worker: HandWorker, kind: str
) -> None:
    """However faithfully its worker reports."""
    services = live_gateway.services
    services.settings.attempt_seconds = 3600.0
    job_id = submit_queued(live_gateway, client)
    if kind == "evaluate":
        train(live_gateway, worker, job_id)
    token = worker.must_claim(job_id, kind).attempt_token  # type: ignore[arg-type]  # one of the two
    for _ in range(2):
        live_gateway.clock.advance(1799)
        assert worker.heartbeat(token) == "continue"
        with services.database.transaction() as session:
            assert reconcile(session, services, live_gateway.clock()).overlong == 0
    live_gateway.clock.advance(3)
    assert worker.heartbeat(token) == "continue"
    with services.database.transaction() as session:
        assert reconcile(session, services, live_gateway.clock()).overlong == 1
    assert worker.heartbeat(token) == "lost"
    assert error_code(services, job_id) == "attempt_too_long"
    assert job_row(services, job_id).fine_tuned_model is None

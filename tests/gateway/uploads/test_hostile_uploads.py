"""Uploads in parts by those who mean no good, or are many at once."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from openai import APIStatusError, BadRequestError, OpenAI, RateLimitError
from sqlalchemy import select

from gateway.tables.tenancy import Tenant
from gateway.uploads import service
from gateway.uploads.completion import MAX_FAILED
from gateway.uploads.parts import MAX_PART_BYTES, ReceivedPart
from gateway.uploads.repository import tenants_upload
from gateway.uploads.schemas import MAX_PARTS
from gateway.uploads.sweep import sweep_uploads
from tests.gateway.conftest import LiveGateway
from tests.gateway.uploads.conftest import begin, complete_by_hand, files, in_store, send, stored_bytes


def refused(call: Callable[[], object]) -> tuple[int, str | None]:
    with pytest.raises(APIStatusError) as error:
        call()
    return error.value.status_code, error.value.code


@pytest.mark.parametrize(
    ("choose", "expected"),
    [
        (lambda ids: ids[:-1], "upload_size_mismatch"),
        (lambda ids: [], "invalid_request"),
        (lambda ids: [*ids, ids[0]], "duplicate_part"),
        (lambda ids: [*ids[:-1], "part_" + "0" * 24], "unknown_part"),
        (lambda ids: [*ids, "../../etc/passwd"], "unknown_part"),
        (lambda ids: [*ids, "x" * 65], "invalid_request"),
        (lambda ids: ["part_x"] * MAX_PARTS, "duplicate_part"),
        (lambda ids: ["part_" + str(n) for n in range(MAX_PARTS + 1)], "invalid_request"),
    ],
)
def test_parts_that_do_not_make_the_file_make_none(
    live_gateway: LiveGateway, client: OpenAI, choose: Callable[[list[str]], list[str]], expected: str
) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    with pytest.raises(BadRequestError) as error:
        client.uploads.complete(upload_id, part_ids=choose(ids))
    assert error.value.code == expected
    assert files(live_gateway) == []
    assert client.uploads.complete(upload_id, part_ids=ids).status == "completed"


def test_a_hundred_thousand_ids_are_not_read(client: OpenAI) -> None:
    upload_id = begin(client)
    ids = [f"part_{n:024}" for n in range(100_000)]
    assert refused(lambda: client.uploads.complete(upload_id, part_ids=ids)) == (413, "body_too_large")


def test_a_part_of_another_upload_is_unknown(client: OpenAI) -> None:
    mine, other = begin(client), begin(client)
    ids, others = send(client, mine), send(client, other)
    with pytest.raises(BadRequestError, match=r"part_ids\[2\]") as error:
        client.uploads.complete(mine, part_ids=[*ids[:2], others[2]])
    assert (error.value.code, error.value.param) == ("unknown_part", "part_ids[2]")


def test_a_part_is_refused_by_the_length_that_it_announces(client: OpenAI) -> None:
    upload_id = begin(client, bytes=MAX_PART_BYTES * 2)
    assert refused(lambda: client.uploads.parts.create(upload_id, data=bytes(MAX_PART_BYTES + (1 << 17)))) == (
        413,
        "part_too_large",
    )


def test_a_part_with_no_bytes_or_by_another_name_is_refused(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    url, headers = f"{live_gateway.url}/v1/uploads/{upload_id}/parts", {"authorization": f"Bearer {client.api_key}"}
    codes = [
        httpx.post(url, headers=headers, **body).json()["error"]["code"]
        for body in (
            {"files": {"data": ("a", b"")}},
            {"files": {"file": ("a", b"x")}},
            {"files": {"data": ("a", b"x")}, "data": {"purpose": "fine-tune"}},
            {"files": [("data", ("a", b"x")), ("data", ("b", b"x"))]},
            {"json": {"data": "x"}},
        )
    ]
    assert codes == ["empty_part", "unknown_field", "unknown_field", "two_files", "invalid_multipart"]
    assert in_store(live_gateway) == []


def test_parts_of_more_than_twice_the_file_are_refused(live_gateway: LiveGateway, client: OpenAI) -> None:
    """All parts once more, as a client sends them that got no answer, and not a byte besides."""
    upload_id = begin(client, b"0123456789")
    for content in (b"0123456789", b"9876543210"):
        client.uploads.parts.create(upload_id, data=content)
    assert refused(lambda: client.uploads.parts.create(upload_id, data=b"x")) == (400, "upload_size_exceeded")
    assert stored_bytes(live_gateway) == 20
    assert len(in_store(live_gateway)) == 2


def test_parts_beyond_the_number_of_them_are_refused(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    with live_gateway.services.database.transaction() as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
        tenants_upload(session, tenant_id, upload_id).n_parts = MAX_PARTS
    assert refused(lambda: client.uploads.parts.create(upload_id, data=b"x")) == (400, "too_many_parts")


def test_parts_count_for_what_the_tenant_stores_until_they_are_swept(
    live_gateway: LiveGateway, client: OpenAI, content: bytes
) -> None:
    """Room for the file and a half of it: parts of another upload have none left, until the first is cancelled."""
    live_gateway.services.settings.stored_bytes = len(content) * 3 // 2
    first, second = begin(client), begin(client)
    send(client, first)
    assert stored_bytes(live_gateway) == len(content)
    assert refused(lambda: client.uploads.parts.create(second, data=content))[1] == "quota_exceeded"
    assert refused(lambda: begin(client))[1] == "quota_exceeded"
    assert stored_bytes(live_gateway) == len(content)
    client.uploads.cancel(first)
    assert refused(lambda: client.uploads.parts.create(second, data=content))[1] == "quota_exceeded"
    sweep_uploads(live_gateway.services)
    assert stored_bytes(live_gateway) == 0
    assert client.uploads.complete(second, part_ids=send(client, second)).status == "completed"


def test_a_full_share_does_not_keep_its_own_parts_from_becoming_a_file(
    live_gateway: LiveGateway, client: OpenAI, content: bytes
) -> None:
    live_gateway.services.settings.stored_bytes = len(content)
    upload_id = begin(client)
    client.uploads.complete(upload_id, part_ids=send(client, upload_id))
    assert stored_bytes(live_gateway) == 2 * len(content)
    sweep_uploads(live_gateway.services)
    assert stored_bytes(live_gateway) == len(content)


def test_open_uploads_are_limited(live_gateway: LiveGateway, client: OpenAI) -> None:
    live_gateway.services.settings.open_uploads = 2
    first, _ = begin(client), begin(client)
    with pytest.raises(RateLimitError, match="open_uploads") as error:
        begin(client)
    assert error.value.code == "quota_exceeded"
    begin(live_gateway.client(live_gateway.tenant_key("other")))
    client.uploads.cancel(first)
    begin(client)
    live_gateway.clock.advance(3600)
    begin(client)


def test_parts_and_completions_are_uploads_under_way(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    with live_gateway.services.database.reading() as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
    with ExitStack() as under_way:
        for _ in range(live_gateway.services.settings.uploads_at_once):
            under_way.enter_context(live_gateway.app.state.uploads.one_more(tenant_id))
        for call in (
            lambda: client.uploads.parts.create(upload_id, data=b"x"),
            lambda: client.uploads.complete(upload_id, part_ids=ids),
        ):
            with pytest.raises(RateLimitError, match="uploads_at_once"):
                call()
    assert client.uploads.complete(upload_id, part_ids=ids).status == "completed"


def test_a_store_that_is_nearly_full_takes_no_part_and_makes_no_file(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    live_gateway.services.settings.min_free_bytes = 2**62
    full = (507, "insufficient_storage")
    assert refused(lambda: begin(client)) == full
    assert refused(lambda: client.uploads.parts.create(upload_id, data=b"x")) == full
    assert refused(lambda: client.uploads.complete(upload_id, part_ids=ids)) == full
    live_gateway.services.settings.min_free_bytes = 0
    assert client.uploads.complete(upload_id, part_ids=ids).status == "completed"


def test_wrong_sums_end_an_upload(live_gateway: LiveGateway, client: OpenAI, content: bytes) -> None:
    """Each has the service read and write the whole file, so there are three."""
    upload_id = begin(client)
    ids = send(client, upload_id)
    found = f"md5: the parts together have {hashlib.md5(content).hexdigest()}, not {'0' * 32}; name them in order."
    errors = []
    for _ in range(MAX_FAILED + 1):
        with pytest.raises(BadRequestError) as error:
            client.uploads.complete(upload_id, part_ids=ids, md5="0" * 32)
        errors.append((error.value.code, error.value.response.json()["error"]["message"]))
    assert errors == [
        ("md5_mismatch", f"{found} After 2 more of these the upload is cancelled."),
        ("md5_mismatch", f"{found} After 1 more of these the upload is cancelled."),
        ("md5_mismatch", f"{found} It is cancelled now: begin another."),
        ("upload_cancelled", f"Upload {upload_id} is cancelled; begin another one."),
    ]
    assert sweep_uploads(live_gateway.services) == 1
    assert (files(live_gateway), in_store(live_gateway), stored_bytes(live_gateway)) == ([], [], 0)


def test_completions_at_once_make_one_file(live_gateway: LiveGateway, client: OpenAI, content: bytes) -> None:
    upload_id = begin(client)
    ids, key = send(client, upload_id), client.api_key
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: complete_by_hand(live_gateway, key, upload_id, ids), range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4
    assert {answer.json()["file"]["id"] for answer in answers} == set(files(live_gateway))
    sweep_uploads(live_gateway.services)
    assert stored_bytes(live_gateway) == len(content)


def test_completions_of_one_tenant_take_no_turn_of_anothers(live_gateway: LiveGateway, client: OpenAI) -> None:
    """As many as it may have at once, of parts that the store does not give: each is a pipe that nobody writes to."""
    other = live_gateway.client(live_gateway.tenant_key("other"))
    with live_gateway.services.database.reading() as session:
        tenant_id = session.scalars(select(Tenant.id).where(Tenant.name == "acme")).one()
    slow = [begin(client, b"{}") for _ in range(live_gateway.services.settings.uploads_at_once)]
    calls = [(name, send(client, name, b"{}", n_parts=1)) for name in slow]
    pipes = in_store(live_gateway)
    for pipe in pipes:
        pipe.unlink()
        os.mkfifo(pipe)
    key, quick = client.api_key, begin(other)
    with ThreadPoolExecutor(len(slow)) as pool:
        answers = [pool.submit(complete_by_hand, live_gateway, key, *call) for call in calls]
        try:
            while live_gateway.app.state.uploads._running[tenant_id] < len(slow):
                time.sleep(0.01)
            assert other.uploads.complete(quick, part_ids=send(other, quick)).status == "completed"
            assert not any(answer.done() for answer in answers)
        finally:
            for pipe in pipes:
                opened = os.open(pipe, os.O_RDWR)  # who reads it finds that it ends
                pipe.unlink()
                pipe.write_bytes(b"{}")
                os.close(opened)
    assert sorted(answer.result().status_code for answer in answers)[:-1] == [200] * (len(slow) - 1)


def test_parts_at_once_are_all_counted(live_gateway: LiveGateway, client: OpenAI, content: bytes) -> None:
    """Eight equal ones, by four at a time: they share their bytes, and each counts."""
    upload_id = begin(client, b"x" * 8)
    url, headers = f"{live_gateway.url}/v1/uploads/{upload_id}/parts", {"authorization": f"Bearer {client.api_key}"}
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda _: httpx.post(url, files={"data": ("a", b"x")}, headers=headers), range(8)))
    assert {answer.status_code for answer in sent} == {200}
    assert stored_bytes(live_gateway) == 8
    file = client.uploads.complete(upload_id, part_ids=[answer.json()["id"] for answer in sent]).file
    assert file is not None
    assert client.files.content(file.id).read() == b"x" * 8


def test_a_part_that_is_refused_takes_no_bytes_from_an_equal_one(live_gateway: LiveGateway, client: OpenAI) -> None:
    """The upload is cancelled while the second is on its way: what it wrote is what the first consists of."""
    upload_id = begin(client, b"0123456789")
    client.uploads.parts.create(upload_id, data=b"0123456789")
    services = live_gateway.services
    with services.database.reading() as session:
        tenant_id = session.scalars(select(Tenant.id)).one()
    received = ReceivedPart(services.stores.of_upload(upload_id).put_bytes(b"0123456789"), 10)
    services.settings.stored_bytes = 10
    with pytest.raises(Exception, match="stored_bytes"):
        service.add_part(services, tenant_id, upload_id, received)
    assert len(in_store(live_gateway)) == 1

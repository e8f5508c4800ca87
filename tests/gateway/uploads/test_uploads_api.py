"""`/v1/uploads` through the openai client: what it sends, what it gets, and what becomes of the parts."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from gateway.uploads.sweep import sweep_uploads
from tests.gateway.conftest import LiveGateway
from tests.gateway.hand_worker import submit, validate_here
from tests.gateway.uploads.conftest import begin, files, in_store, send, stored_bytes


def code(call: object, *arguments: object, **named: object) -> str | None:
    """Of the 400 or 404 that the call is answered with."""
    with pytest.raises((BadRequestError, NotFoundError)) as error:
        call(*arguments, **named)  # type: ignore[operator]  # a method of the client
    return error.value.code


def test_the_clients_own_helper_uploads_a_path_in_parts(client: OpenAI, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(content)
    md5 = hashlib.md5(content).hexdigest()
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=1000, md5=md5
    )
    assert (upload.object, upload.status, upload.bytes, upload.filename) == (
        "upload",
        "completed",
        len(content),
        "mine.jsonl",
    )
    assert upload.id.startswith("upload_")
    assert upload.expires_at == upload.created_at + 3600
    assert upload.file is not None
    assert client.files.retrieve(upload.file.id) == upload.file
    assert client.files.content(upload.file.id).read() == content


def test_the_helper_uploads_bytes_and_the_async_client_does_too(live_gateway: LiveGateway, content: bytes) -> None:
    key = live_gateway.tenant_key()

    async def run() -> str:
        async with AsyncOpenAI(base_url=f"{live_gateway.url}/v1", api_key=key, max_retries=0) as client:
            upload = await client.uploads.upload_file_chunked(
                file=content,
                filename="rows",
                bytes=len(content),
                mime_type="application/octet-stream",
                purpose="fine-tune",
                part_size=999,
            )
            assert upload.file is not None
            return upload.file.filename

    assert asyncio.run(run()) == "rows"


def test_the_file_is_one_like_any_other(live_gateway: LiveGateway, client: OpenAI, content: bytes) -> None:
    """Equal to that of `POST /v1/files`, but for its id; a job trains on it, and its bytes are stored once."""
    upload_id = begin(client)
    in_parts = client.uploads.complete(upload_id, part_ids=send(client, upload_id)).file
    whole = client.files.create(file=("rows.jsonl", content), purpose="fine-tune")
    assert in_parts is not None
    assert in_parts.model_dump(exclude={"id"}) == whole.model_dump(exclude={"id"})
    sweep_uploads(live_gateway.services)
    assert len(in_store(live_gateway)) == 1
    job = submit(client, training_file=in_parts.id)
    validate_here(live_gateway.services, job.id)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "queued"


def test_parts_are_joined_in_the_order_that_the_completion_names(client: OpenAI, content: bytes) -> None:
    upload_id = begin(client)
    last = client.uploads.parts.create(upload_id, data=content[1000:])
    spare = client.uploads.parts.create(upload_id, data=b"sent, and not wanted after all")
    first = client.uploads.parts.create(upload_id, data=content[:1000])
    assert (first.object, first.upload_id, first.id[:5]) == ("upload.part", upload_id, "part_")
    file = client.uploads.complete(upload_id, part_ids=[first.id, last.id]).file
    assert file is not None
    assert client.files.content(file.id).read() == content
    assert spare.id not in (first.id, last.id)


def test_the_same_part_twice_counts_as_two(client: OpenAI) -> None:
    """A file of two equal halves: one artifact in the store, two parts of the upload."""
    content = b'{"a": 1}\n'
    upload_id = begin(client, content * 2)
    ids = [client.uploads.parts.create(upload_id, data=content).id for _ in range(2)]
    file = client.uploads.complete(upload_id, part_ids=ids).file
    assert file is not None
    assert client.files.content(file.id).read() == content * 2


def test_the_file_expires_when_its_upload_says_so(client: OpenAI) -> None:
    expiry = {"anchor": "created_at", "seconds": 7200}
    upload_id = begin(client, expires_after=expiry)
    file = client.uploads.complete(upload_id, part_ids=send(client, upload_id)).file
    assert file is not None
    assert file.expires_at == file.created_at + 7200


@pytest.mark.parametrize("mime_type", ["text/jsonl", "application/x-ndjson; charset=utf-8", "text/plain", "JSONL"])
def test_whatever_jsonl_is_called_is_taken(client: OpenAI, mime_type: str) -> None:
    assert begin(client, mime_type=mime_type)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"purpose": "assistants"}, "unsupported_purpose"),
        ({"mime_type": "application/pdf"}, "unsupported_mime_type"),
        ({"mime_type": "application/gzip"}, "unsupported_mime_type"),
        ({"filename": "a\x01.jsonl"}, "unsupported_file"),
        ({"filename": ""}, "invalid_request"),
        ({"bytes": 0}, "invalid_request"),
        ({"bytes": -1}, "invalid_request"),
        ({"bytes": 2**64}, "invalid_json"),
        ({"bytes": 1.5}, "invalid_request"),
        ({"bytes": "12"}, "invalid_request"),
        ({"expires_after": {"anchor": "created_at", "seconds": 60}}, "invalid_request"),
        ({"extra_body": {"tenant_id": "org-1"}}, "invalid_request"),
    ],
)
def test_what_a_file_can_not_be_is_refused_before_a_byte_is_sent(
    client: OpenAI, fields: dict[str, object], expected: str
) -> None:
    assert code(begin, client, **fields) == expected


def test_a_file_larger_than_any_is_refused_by_its_announcement(live_gateway: LiveGateway, client: OpenAI) -> None:
    limit = live_gateway.services.settings.max_upload_bytes
    begin(client, bytes=limit)
    with pytest.raises(APIStatusError) as error:
        begin(client, bytes=limit + 1)
    assert (error.value.status_code, error.value.code) == (413, "file_too_large")


def test_what_is_not_jsonl_is_refused_as_in_one_request(live_gateway: LiveGateway, client: OpenAI) -> None:
    """Neither by name nor by content. The upload stays open, and nothing of it has become a file."""
    content = b'[{"messages": []}]'
    upload_id = begin(client, content, filename="rows.json")
    ids = send(client, upload_id, content)
    assert code(client.uploads.complete, upload_id, part_ids=ids) == "unsupported_file"
    assert files(live_gateway) == []
    assert in_store(live_gateway, "files/sha256") == in_store(live_gateway, "files/incoming") == []
    assert client.uploads.cancel(upload_id).status == "cancelled"


def test_a_wrong_md5_makes_no_file_and_the_right_one_does(
    live_gateway: LiveGateway, client: OpenAI, content: bytes
) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    assert code(client.uploads.complete, upload_id, part_ids=ids, md5="0" * 32) == "md5_mismatch"
    assert code(client.uploads.complete, upload_id, part_ids=ids, md5="no md5") == "invalid_request"
    assert files(live_gateway) == []
    assert in_store(live_gateway, "files/sha256") == in_store(live_gateway, "files/incoming") == []
    md5 = hashlib.md5(content).hexdigest().upper()
    assert client.uploads.complete(upload_id, part_ids=ids, md5=md5).status == "completed"


def test_completing_again_gives_the_same_file_and_completing_otherwise_does_not(
    live_gateway: LiveGateway, client: OpenAI
) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    first = client.uploads.complete(upload_id, part_ids=ids)
    for _ in range(2):
        assert client.uploads.complete(upload_id, part_ids=ids) == first
        sweep_uploads(live_gateway.services)
    assert len(files(live_gateway)) == 1
    assert code(client.uploads.complete, upload_id, part_ids=ids[::-1]) == "upload_completed"
    assert code(client.uploads.cancel, upload_id) == "upload_completed"
    assert code(client.uploads.parts.create, upload_id, data=b"more") == "upload_completed"
    assert first.file is not None
    client.files.delete(first.file.id)
    assert client.uploads.complete(upload_id, part_ids=ids).file is None


def test_a_cancelled_upload_takes_nothing_more(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    assert [client.uploads.cancel(upload_id).status for _ in range(2)] == ["cancelled"] * 2
    assert code(client.uploads.parts.create, upload_id, data=b"more") == "upload_cancelled"
    assert code(client.uploads.complete, upload_id, part_ids=ids) == "upload_cancelled"
    assert files(live_gateway) == []


def test_an_upload_expires_after_an_hour(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    live_gateway.clock.advance(3600)
    for _ in range(2):
        assert code(client.uploads.parts.create, upload_id, data=b"more") == "upload_expired"
        assert code(client.uploads.complete, upload_id, part_ids=ids) == "upload_expired"
        assert code(client.uploads.cancel, upload_id) == "upload_expired"
        sweep_uploads(live_gateway.services)
    assert (files(live_gateway), in_store(live_gateway), stored_bytes(live_gateway)) == ([], [], 0)


def test_another_tenants_upload_is_a_404_everywhere(live_gateway: LiveGateway, client: OpenAI) -> None:
    upload_id = begin(client)
    ids = send(client, upload_id)
    stranger = live_gateway.client(live_gateway.tenant_key("stranger"))
    assert code(stranger.uploads.parts.create, upload_id, data=b"x") == "upload_not_found"
    assert code(stranger.uploads.complete, upload_id, part_ids=ids) == "upload_not_found"
    assert code(stranger.uploads.cancel, upload_id) == "upload_not_found"
    theirs = begin(stranger)
    assert code(stranger.uploads.complete, theirs, part_ids=ids) == "unknown_part"
    assert client.uploads.complete(upload_id, part_ids=ids).status == "completed"


def test_an_upload_has_no_other_methods(live_gateway: LiveGateway, client: OpenAI) -> None:
    headers = {"authorization": f"Bearer {client.api_key}"}
    answer = httpx.get(f"{live_gateway.url}/v1/uploads", headers=headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

"""Uploads on the way to the store: memory, limits, refusals, interruptions."""

from __future__ import annotations

import asyncio
import hashlib
import math
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import Request

from gateway.errors import ApiError, InvalidRequest
from gateway.files.upload import Upload, receive_upload
from policies.contract.store import ArtifactStore, ArtifactWriter

if TYPE_CHECKING:
    from tests.gateway.conftest import LiveGateway

BOUNDARY = "0123456789abcdef"
MIB = 1 << 20


class WatchedWriter:
    """Passes pieces on to a writer, notes the largest, and fails at a size."""

    def __init__(self, writer: ArtifactWriter, store: CountingStore) -> None:
        self._writer = writer
        self._store = store

    def write(self, chunk: bytes) -> None:
        self._store.largest_piece = max(self._store.largest_piece, len(chunk))
        if self.size_bytes >= self._store.fails_at_bytes:
            raise OSError("disk full")
        self._writer.write(chunk)

    @property
    def size_bytes(self) -> int:
        return self._writer.size_bytes

    @property
    def digest(self) -> str:
        return self._writer.digest


class CountingStore(ArtifactStore):
    """A store that notes the largest piece it was given."""

    def __init__(self, url: str, fails_at_bytes: float = math.inf) -> None:
        super().__init__(url)
        self.largest_piece = 0
        self.fails_at_bytes = fails_at_bytes

    @contextmanager
    def writer(self) -> Iterator[WatchedWriter]:  # type: ignore[override]  # it has the members that are used
        with super().writer() as writer:
            yield WatchedWriter(writer, self)


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    extra = f'; filename="{filename}"' if filename is not None else ""
    header = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return header.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
PURPOSE = part("purpose", b"fine-tune")


def receive(store: ArtifactStore, chunks: Iterator[bytes], *, max_file_bytes: int = 64 * MIB, **headers: str) -> Upload:
    """Run an upload whose body arrives in `chunks`; the client is gone once they are used up."""
    sent = {"content-type": f"multipart/form-data; boundary={BOUNDARY}", **headers}

    async def messages() -> AsyncIterator[dict[str, object]]:
        for chunk in chunks:
            yield {"type": "http.request", "body": chunk, "more_body": chunk != END}
        yield {"type": "http.disconnect"}

    arriving = messages()
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/files", "headers": raw}
    request = Request(scope, lambda: anext(arriving))
    return asyncio.run(receive_upload(request, store, max_file_bytes=max_file_bytes))


def whole(*parts: bytes) -> Iterator[bytes]:
    return iter([*parts, END])


def kept(store_folder: Path) -> list[Path]:
    return [path for path in store_folder.rglob("*") if path.is_file()]


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(f"file://{tmp_path}")


def test_upload_of_32_mib_is_held_in_pieces_of_what_arrives(store: CountingStore, tmp_path: Path) -> None:
    """512 pieces of 64 KiB arrive; no piece handed to the store is larger than one of them."""
    piece = bytes(range(256)) * 256
    chunks = (PURPOSE, part("file", b"", "a.jsonl")[:-2], *[piece] * 512, b"\r\n", END)
    upload = receive(store, iter(chunks))
    assert upload.size_bytes == 32 * MIB
    assert upload.digest == "sha256:" + hashlib.sha256(piece * 512).hexdigest()
    assert 0 < store.largest_piece <= len(piece)
    assert len(kept(tmp_path)) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_body_may_be_cut_anywhere(store: CountingStore, size: int) -> None:
    content = b'{"a": "\r\n--0123"}\n--0123456789abcde\r\n'
    body = PURPOSE + part("file", content, "a.jsonl") + END[:-2]
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    upload = receive(store, iter([*pieces, END[-2:], END]))
    assert store.read_bytes(upload.digest) == content


def test_fields_may_follow_the_file(store: CountingStore) -> None:
    assert receive(store, whole(part("file", b"x\n", "a.jsonl"), PURPOSE)).size_bytes == 2


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((PURPOSE,), "missing_file"),
        ((part("file", b"x", "a.jsonl"),), "unsupported_purpose"),
        ((PURPOSE, part("file", b"x")), "unsupported_file"),
        ((PURPOSE, part("data", b"x")), "unknown_field"),
        ((PURPOSE, part("tenant_id", b"org-1"), part("file", b"x", "a.jsonl")), "unknown_field"),
        ((PURPOSE, PURPOSE, part("file", b"x", "a.jsonl")), "too_many_fields"),
        ((PURPOSE, part("file", b"x", "a.jsonl"), part("file", b"y", "b.jsonl")), "two_files"),
        ((part("purpose", b"x" * 1025),), "field_too_long"),
        ((PURPOSE, part("file", b"x", "a\x01.jsonl")), "unsupported_file"),
        ((b"garbage",), "invalid_multipart"),
        ((PURPOSE, part("expires_after[seconds]", b"3600"), part("file", b"x", "a.jsonl")), "invalid_expiry"),
    ],
)
def test_wrong_form_is_refused_and_leaves_nothing(
    store: CountingStore, tmp_path: Path, parts: tuple[bytes, ...], code: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        receive(store, whole(*parts))
    assert error.value.code == code
    assert kept(tmp_path) == []


def test_truncated_body_is_refused(store: CountingStore, tmp_path: Path) -> None:
    body = PURPOSE + part("file", b"x" * 100, "a.jsonl")
    with pytest.raises(InvalidRequest) as error:
        receive(store, iter([body]))
    assert error.value.code == "upload_interrupted"
    assert kept(tmp_path) == []


def test_declared_length_over_the_limit_is_refused_before_the_body(store: CountingStore) -> None:
    def no_body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    with pytest.raises(ApiError) as error:
        receive(store, no_body(), max_file_bytes=10, content_length="100000")
    assert error.value.status == 413


def test_file_over_the_limit_is_refused_while_it_arrives(store: CountingStore, tmp_path: Path) -> None:
    def endless() -> Iterator[bytes]:
        yield PURPOSE
        yield part("file", b"", "a.jsonl")[:-2]
        while True:
            yield bytes(1000)

    with pytest.raises(ApiError) as error:
        receive(store, endless(), max_file_bytes=10_000)
    assert error.value.status == 413
    assert kept(tmp_path) == []


@pytest.mark.parametrize(
    "start",
    [(b"\r\n",), (PURPOSE, part("file", b"x", "a.jsonl"), END[:-2])],
    ids=["before the first part", "after the last part"],
)
def test_endless_text_around_the_parts_is_refused(
    store: CountingStore, tmp_path: Path, start: tuple[bytes, ...]
) -> None:
    """It belongs to no file, so no limit of a file ends it: at most 10,000 bytes and the form's 64 KiB are read."""
    n_chunks = 0

    def endless() -> Iterator[bytes]:
        nonlocal n_chunks
        yield from start
        while n_chunks < 1000:
            n_chunks += 1
            yield b"\r" + b"x" * 999

    with pytest.raises(ApiError) as error:
        receive(store, endless(), max_file_bytes=10_000)
    assert error.value.status == 413
    assert n_chunks <= 76
    assert kept(tmp_path) == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "br"])
def test_compressed_body_is_415(store: CountingStore, encoding: str) -> None:
    with pytest.raises(ApiError) as error:
        receive(store, whole(PURPOSE), content_encoding=encoding)
    assert error.value.status == 415


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", "multipart/form-data; boundary="])
def test_other_body_is_refused(store: CountingStore, content_type: str) -> None:
    with pytest.raises(InvalidRequest):
        receive(store, whole(PURPOSE), content_type=content_type)


def test_failing_store_leaves_nothing(tmp_path: Path) -> None:
    store = CountingStore(f"file://{tmp_path}", fails_at_bytes=2000)
    pieces = [bytes(1000)] * 5
    with pytest.raises(OSError, match="disk full"):
        receive(store, iter([PURPOSE, part("file", b"", "a.jsonl")[:-2], *pieces, b"\r\n", END]))
    assert kept(tmp_path) == []


def test_client_that_hangs_up_leaves_nothing(live_gateway: LiveGateway) -> None:
    """Each look at `incoming` is one request later; the cleaning up takes a few at most."""
    key, address = live_gateway.tenant_key(), urlsplit(live_gateway.url)
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: 50000\r\n\r\n"
    )
    with socket.create_connection((address.hostname, address.port)) as connection:
        connection.sendall(head.encode() + PURPOSE + part("file", b"x" * 5000, "a.jsonl"))
    files = f"{live_gateway.url}/v1/files"
    incoming = Path(live_gateway.services.settings.store_url.removeprefix("file://")) / "incoming"
    with httpx.Client(headers={"authorization": f"Bearer {key}"}) as client:
        looks = ((client.get(files).json()["data"], list(incoming.glob("*"))) for _ in range(1000))
        assert ([], []) in looks

"""Who has no key, or nothing to say, holds neither memory nor connections."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from gateway.http import body_limit, connections
from gateway.http.connections import BoundedProtocol
from tests.gateway.conftest import LiveGateway

PATIENCE_SECONDS = 20.0


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test need not wait long for."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(body_limit, "IDLE_SECONDS", 0.3)


@pytest.fixture
def server(hurried: None, live_gateway: LiveGateway) -> Iterator[tuple[str, int]]:
    """The live gateway's application once more, behind the protocol that `tunegate serve` uses."""
    from gateway.app import create_app

    app = create_app(live_gateway.services.settings, live_gateway.clock)
    configuration = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off", http=BoundedProtocol)
    running, listening = uvicorn.Server(configuration), configuration.bind_socket()
    listening.listen()
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield "127.0.0.1", listening.getsockname()[1]
    running.should_exit = True
    thread.join()
    listening.close()
    app.state.services.database.close()


@contextmanager
def opened(address: tuple[str, int]) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
        yield connection


def rest(connection: socket.socket) -> bytes:
    """What still comes until the other side closes; an abort counts as that."""
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except ConnectionResetError:
        pass
    return found


def post(path: str, *headers: str, length: int) -> bytes:
    kind = () if any(each.startswith("content-type") for each in headers) else ("content-type: application/json",)
    lines = [f"POST {path} HTTP/1.1", "host: x", f"content-length: {length}", *kind, *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@pytest.mark.parametrize("said", [b"", b"G", b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: "])
def test_half_a_request_is_cut(server: tuple[str, int], said: bytes) -> None:
    with opened(server) as connection:
        connection.sendall(said)
        assert rest(connection) == b""


def test_headers_that_trickle_in_are_cut(server: tuple[str, int]) -> None:
    with opened(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")

        def trickle() -> None:
            for number in range(200):
                connection.sendall(f"x-{number}: slow\r\n".encode())
                time.sleep(0.05)

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            trickle()


def test_headers_without_end_are_cut(server: tuple[str, int]) -> None:
    with opened(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nx-long: ")

        def go_on() -> None:
            for _ in range(1000):
                connection.sendall(b"x" * 65536)

        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            go_on()


def test_a_whole_request_is_answered_and_a_further_half_one_cut(server: tuple[str, int]) -> None:
    with opened(server) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea")
        assert rest(connection).startswith(b"HTTP/1.1 200")


def test_one_connection_too_many_is_closed(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", PATIENCE_SECONDS)
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    with opened(server) as first, opened(server) as second:
        for connection in (first, second):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        with opened(server) as third:
            assert rest(third) == b""


@pytest.mark.parametrize("path", ["/v1/fine_tuning/jobs", "/v1/files"])
def test_the_key_is_checked_before_the_body(server: tuple[str, int], path: str) -> None:
    """The answer is there although of the announced body not one byte was sent."""
    with opened(server) as connection:
        connection.sendall(post(path, "authorization: Bearer sk-tg-nothing", length=200_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("path", ["/v1/fine_tuning/jobs", "/v1/files"])
def test_a_body_that_stops_coming_is_a_408(server: tuple[str, int], live_gateway: LiveGateway, path: str) -> None:
    key = live_gateway.tenant_key("slow")
    form = "content-type: multipart/form-data; boundary=x"
    with opened(server) as connection:
        connection.sendall(post(path, f"authorization: Bearer {key}", form, length=1000) + b"--x\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_a_tenants_body_is_small(server: tuple[str, int], live_gateway: LiveGateway) -> None:
    key, length = live_gateway.tenant_key("large"), body_limit.MAX_BODY_BYTES + 1
    with opened(server) as connection:
        connection.sendall(post("/v1/fine_tuning/jobs", f"authorization: Bearer {key}", length=length))
        connection.sendall(bytes(length))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")

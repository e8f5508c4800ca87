"""The commands where something else than Tunegate answers: a sentence, never a traceback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gateway.cli.commands import COMMANDS
from policies.cli import exit_codes
from policies.cli.main import build_app, run

Answer = tuple[int, bytes]


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    """Lets a server answer every request so, and the commands ask it."""
    answers: list[Answer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, body = answers[-1]
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # as the server calls it

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("TUNEGATE_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("TUNEGATE_API_KEY", "key")
    yield answers.append
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"3", b"", b"{}", b"[" * 100_000, b"\xff"])
@pytest.mark.parametrize("command", ["jobs list", "jobs get x", "jobs report x", "files upload FILE"])
def test_an_answer_that_is_none_of_ours_is_told(
    answering: Callable[[Answer], None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    body: bytes,
    command: str,
) -> None:
    answering((200, body))
    (tmp_path / "a.jsonl").write_text("{}")
    words = [str(tmp_path / "a.jsonl") if word == "FILE" else word for word in command.split()]
    assert run(words, build_app(COMMANDS)) == exit_codes.USAGE
    assert "is not Tunegate's API; check TUNEGATE_BASE_URL (invalid_configuration)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((502, b"<html>"), "HTTP 502"),
        ((500, b'{"error": "boom"}'), "HTTP 500"),
        ((500, b'["error"]'), "HTTP 500"),
        ((404, b'{"error": {"message": null}}'), "HTTP 404"),
        ((302, b""), "HTTP 302"),
        ((400, b'{"error": {"message": "No.", "code": "invalid_request"}}'), "No. (invalid_request)"),
    ],
)
def test_an_error_of_any_form_is_told(
    answering: Callable[[Answer], None], capsys: pytest.CaptureFixture[str], answer: Answer, told: str
) -> None:
    answering(answer)
    assert run(["jobs", "list"], build_app(COMMANDS)) != exit_codes.OK
    assert f"error: {told}" in capsys.readouterr().err

"""A guard model's API on a free port of this machine, with answers that a test writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str, dict[str, Any]], tuple[int, object]]  # Any: a JSON request


class Guard:
    """What a server was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []  # Any: JSON requests


@contextmanager
def guard_server(answer: Answer) -> Iterator[Guard]:
    """A real server on a free port; `answer` gives status and JSON body."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            guard.asked.append((self.path, body, self.headers["authorization"]))
            status, content = answer(self.path, body)
            sent = content if isinstance(content, bytes) else json.dumps(content).encode()
            with suppress(ConnectionError):  # whoever asked may be gone
                self.send_response(status)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    guard = Guard(f"http://127.0.0.1:{server.server_port}/v1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield guard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def chat(word: Callable[[str], str]) -> Answer:
    def answer(_: str, body: dict[str, Any]) -> tuple[int, object]:  # Any: a JSON request
        return 200, {"choices": [{"message": {"role": "assistant", "content": word(body["messages"][0]["content"])}}]}

    return answer


def flags_burning(text: str) -> str:
    return "Safety: Unsafe\nCategories: Violent" if "burn" in text else "Safety: Safe"

"""Servers that tests take in turn: to start and to stop one takes longer than most tests need it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send


class _Server:
    """uvicorn in a thread that ends with the process, for one app after the other."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(self._serve, host="127.0.0.1", port=0, log_config=None, lifespan="off", interface="asgi3")
        )
        socket = self._uvicorn.config.bind_socket()
        socket.listen()  # a request that comes before the server runs waits, and is not refused
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [socket]}, daemon=True).start()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None, "no test is under way"
        await self.app(scope, receive, send)

    def end_requests(self) -> None:
        """Returns once the last request is answered."""
        while self._uvicorn.server_state.tasks:
            time.sleep(0.002)


_idle: list[_Server] = []


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address at which a server of its own serves the app; at the end every request is answered."""
    server = _idle.pop() if _idle else _Server()
    server.app = app
    try:
        yield server.url
    finally:
        server.end_requests()
        server.app = None
        _idle.append(server)

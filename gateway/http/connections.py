"""Connections that say nothing, or never finish saying it, are cut; nginx in front does the same for what it sees."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""From the opening of a connection, or the first byte of a further request, to the end of its headers."""
MAX_HEAD_BYTES = 64 * 1024
MAX_CONNECTIONS = 2000
"""Open at once in one process; further ones are closed at once."""


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with bounds on time and size of what comes before a request begins."""

    _give_up_at: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._give_up_at is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._stop_expecting()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        """The time runs from the first call on, however the bytes trickle in."""
        if self._give_up_at is None:
            self._head_bytes = 0
            self._give_up_at = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _stop_expecting(self) -> None:
        if self._give_up_at is not None:
            self._give_up_at.cancel()
            self._give_up_at = None

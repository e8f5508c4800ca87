"""Bodies are bounded in bytes and in time. Uploads bound their bytes themselves; their time is bounded here too."""

from __future__ import annotations

import asyncio
import re

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from policies.contract.tasks import INTERNAL_PREFIX

MAX_BODY_BYTES = 256 * 1024
"""Of a tenant's request. The largest is a new job: integrations and metadata with some room."""
MAX_WORKER_BODY_BYTES = 8 * 1024 * 1024
"""Of a worker's call: a batch of 1,000 events."""
STREAMED_PATH = re.compile("/v1/files|/v1/uploads/[^/]+/parts")
IDLE_SECONDS = 30.0
"""Longest wait for the next piece of a body."""
LEAST_BYTES_PER_SECOND = 16 * 1024
"""A body that comes more slowly than this, after the first `IDLE_SECONDS`, holds a connection for nothing."""


class BodyLimit:
    """Stops reading a request's body that is too long, which answers it with 413, or too slow, with 408."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        limit = _limit(scope["path"])
        received, complete, started = 0, False, asyncio.get_running_loop().time()

        async def bounded() -> Message:
            nonlocal received, complete
            if complete:  # what comes now is the client's going away, for which a response may wait long
                return await receive()
            deadline = started + IDLE_SECONDS + received / LEAST_BYTES_PER_SECOND
            left = min(IDLE_SECONDS, deadline - asyncio.get_running_loop().time())
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, "The body came too slowly; send the request again.") from error
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if limit is not None and received > limit:
                raise HTTPException(413, f"The body is larger than {limit} bytes.")
            return message

        await self.app(scope, bounded, send)


def _limit(path: str) -> int | None:
    if STREAMED_PATH.fullmatch(path):
        return None
    return MAX_WORKER_BODY_BYTES if path.startswith(INTERNAL_PREFIX) else MAX_BODY_BYTES

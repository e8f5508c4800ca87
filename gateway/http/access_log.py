"""The outermost layer of the gateway: a request id, one log line per request, and an answer to every failure."""

from __future__ import annotations

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import unexpected_error
from gateway.kit.ids import new_id

log = structlog.get_logger("gateway.access")
CALLER = ("tenant", "key")
"""Ids of who was let in; of a key the id, never the key."""
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLog:
    """Gives each response `x-request-id` (the caller's own, where it is a plain token) and logs it with its caller."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if REQUEST_ID.fullmatch(offered) else new_id("req_")
        caller: dict[str, str] = scope.setdefault("state", {})  # the endpoint's authentication writes it
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception as error:  # outermost boundary: the client gets the error body, the log the traceback
                log.error("request_crashed", exc_info=error)
                if status:
                    raise  # the response has begun; only closing the connection can tell the client
                await unexpected_error()(scope, receive, send_with_id)
            finally:
                seconds = round(time.perf_counter() - started, 6)
                who = {name: caller[name] for name in CALLER if name in caller}
                log.info("request", method=scope["method"], path=scope["path"], status=status, seconds=seconds, **who)

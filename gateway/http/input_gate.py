"""Paths and query strings, before any route sees them: UTF-8 without NUL, and of bounded length."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import error_response
from gateway.kit.plain_text import unstorable_character

MAX_PATH_BYTES = 2048
MAX_QUERY_BYTES = 32 * 1024
"""Sixteen metadata filters at their longest, percent-encoded, and some room."""
MAX_QUERY_PARAMETERS = 64


class InputGate:
    """Answers what no endpoint could work with."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (message := _refusal(scope)) is not None:
            return await error_response(400, message, code="invalid_url")(scope, receive, send)
        await self.app(scope, receive, send)


def _refusal(scope: Scope) -> str | None:
    """Why the URL is refused, or None."""
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope.get("query_string", b"")
    if len(path) > MAX_PATH_BYTES:
        return f"The path of the URL is longer than {MAX_PATH_BYTES} bytes."
    if len(query) > MAX_QUERY_BYTES:
        return f"The query of the URL is longer than {MAX_QUERY_BYTES} bytes."
    if query.count(b"&") >= MAX_QUERY_PARAMETERS:
        return f"The query of the URL has more than {MAX_QUERY_PARAMETERS} parameters."
    for part, name in ((path, "path"), (query, "query")):
        try:
            found = unstorable_character(unquote_to_bytes(part).decode())
        except UnicodeDecodeError:
            return f"The {name} of the URL is not UTF-8."
        if found is not None:
            return f"The {name} of the URL has the character {found}."
    return None

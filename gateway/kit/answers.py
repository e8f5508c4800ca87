"""What the description of the API says of answers that are no success: one body, and only statuses that happen."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

Described = dict[int | str, dict[str, Any]]  # Any: FastAPI's own shape, a piece of OpenAPI
MEANINGS = {
    400: "The request is malformed, or says something that can't be done.",
    401: "No API key, or one that opens nothing.",
    404: "Unknown, or another organisation's.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is of a kind that is not read.",
    429: "More than the key, or its organisation, may send or have; the message names the limit.",
    503: "The service can't do its work now.",
    507: "The service's storage is nearly full.",
}


class ErrorDetail(BaseModel):
    """What went wrong; branch on `code`."""

    message: str
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorDetail


def refusals(*statuses: int) -> Described:
    """For the `responses` of a route or router."""
    return {status: {"model": ErrorResponse, "description": MEANINGS[status]} for status in statuses}


def content(media_type: str) -> Described:
    """A success that is bytes of `media_type`."""
    return {200: {"content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}}

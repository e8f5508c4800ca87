# ruff: noqa: N818  # errors are named as HTTP names them
"""Errors of the HTTP API, and the one body that all of them have: `{"error": {message, type, param, code}}`.

TunegateError
└── ApiError                 `status` and `type` of the answer; raised anywhere below an endpoint
    ├── InvalidRequest       400
    ├── Unauthorized         401
    ├── Forbidden            403, internal API: work of another kind than the credential's
    ├── NotFound             404, also for what belongs to another tenant
    ├── LeaseGone            410, internal API: the attempt is no longer the worker's
    ├── PayloadTooLarge      413
    ├── UnsupportedMedia     415
    ├── TooManyRequests      429, with when to come again
    ├── Unavailable          503, with the same where it is known
    └── ExportFailed         no answer: an experiment tracker did not take a job's metrics

There is no 409: the openai client would send the request again.
"""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from policies.errors import DatasetError, TunegateError

log = structlog.get_logger(__name__)

METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
MAX_MESSAGE_LENGTH, MAX_PARAM_LENGTH = 1000, 128
"""Of what repeats the caller's own words."""


class ApiError(TunegateError):
    """`code` is the stable reason that clients branch on; it defaults to the class's own."""

    status: int = 500
    type: str = "invalid_request_error"

    def __init__(
        self, message: str, param: str | None = None, code: str | None = None, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message, param)
        self.code = code or type(self).code
        self.retry_after_seconds = retry_after_seconds
        self.args = (message, param, code, retry_after_seconds)

    @property
    def headers(self) -> dict[str, str] | None:
        """When to send the request again, as HTTP and as the openai clients read it."""
        seconds = self.retry_after_seconds
        return None if seconds is None else {"retry-after": str(seconds), "retry-after-ms": str(1000 * seconds)}


class InsufficientStorage(ApiError):
    status = 507
    type = "server_error"
    code = "insufficient_storage"


class InvalidRequest(ApiError):
    status = 400
    code = "invalid_request"


class Unauthorized(ApiError):
    status = 401
    code = "invalid_api_key"


class Forbidden(ApiError):
    status = 403
    code = "wrong_worker_kind"


class NotFound(ApiError):
    status = 404
    code = "not_found"


class LeaseGone(ApiError):
    status = 410
    code = "lease_lost"


class PayloadTooLarge(ApiError):
    status = 413
    code = "file_too_large"


class UnsupportedMedia(ApiError):
    status = 415
    code = "unsupported_media_type"


class TooManyRequests(ApiError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class Unavailable(ApiError):
    status = 503
    type = "server_error"
    code = "unavailable"


class ExportFailed(ApiError):
    code = "export_failed"


def error_response(  # noqa: PLR0913  # four of them are the body
    status: int,
    message: str,
    *,
    code: str | None,
    param: str | None = None,
    type: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    kind = type or ("server_error" if status >= 500 else "invalid_request_error")
    headers = {"www-authenticate": "Bearer"} if status == 401 else headers
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return JSONResponse(body, status_code=status, headers=headers)


def unexpected_error() -> JSONResponse:
    """The answer to what nobody foresaw; what happened is in the log, under the request id."""
    return error_response(
        500, "The server failed to answer. Quote the x-request-id to its operator.", code="internal_error"
    )


def add_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(TunegateError, _render_own)
    app.add_exception_handler(RequestValidationError, _render_validation)
    app.add_exception_handler(HTTPException, _render_http)


def _render_own(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, ApiError):
        body = {"code": error.code, "param": error.param, "type": error.type}
        return error_response(error.status, error.message, headers=error.headers, **body)
    if isinstance(error, DatasetError):
        return error_response(400, error.message, code=error.code, param=error.param)
    log.error("request_failed", path=request.url.path, exc_info=error)
    return unexpected_error()


def _render_validation(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's 422 as OpenAI's 400, naming the first wrong field."""
    assert isinstance(error, RequestValidationError)
    first: Mapping[str, object] = error.errors()[0]
    location = first["loc"]
    assert isinstance(location, tuple)
    names = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    param = ".".join(names)[:MAX_PARAM_LENGTH] or None
    message = f"{param}: {first['msg']}" if param else str(first["msg"])
    return error_response(400, message[:MAX_MESSAGE_LENGTH], code="invalid_request", param=param)


def _render_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message, code = {
        400: (str(error.detail), "invalid_json"),
        404: (f"Unknown URL: {request.method} {request.url.path}.", "unknown_url"),
        405: (f"{request.method} is not allowed on {request.url.path}.", "method_not_allowed"),
        408: (str(error.detail), "body_timeout"),
        413: (str(error.detail), "body_too_large"),
    }.get(error.status_code, (str(error.detail), "http_error"))
    headers = {"allow": _allowed_methods(request)} if error.status_code == 405 else None
    return error_response(error.status_code, message, code=code, headers=headers)


def _allowed_methods(request: Request) -> str:
    """Of all routes of this URL: each alone knows only its own."""
    scopes = ({**request.scope, "method": method} for method in METHODS)
    routes = request.app.routes
    return ", ".join(
        scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)
    )

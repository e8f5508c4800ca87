"""The answer where the database or the storage is away: a 503, since another try may go well."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.errors import error_response
from gateway.migrate import SchemaError
from policies.contract.storage import outages

log = structlog.get_logger(__name__)


def add_outage_handlers(app: FastAPI, *, store_url: str) -> None:
    for kind in outages(store_url):
        app.add_exception_handler(kind, _render_storage)
    app.add_exception_handler(PermissionError, _render_refused)
    for kind in (PoolTimeout, OperationalError):
        app.add_exception_handler(kind, _render_database)
    app.add_exception_handler(SchemaError, _render_schema)


def _render_storage(request: Request, error: Exception) -> JSONResponse:
    """The store, or a connection to it, does not answer: nothing that a client could mend, and worth another try."""
    log.error("storage_failed", path=request.url.path, exc_info=error)
    return error_response(
        503, "The service's storage does not answer; try again later.", code="storage_unavailable", type="server_error"
    )


def _render_refused(request: Request, error: Exception) -> JSONResponse:
    """The store does not let this component do what it has to: for its operator to mend."""
    log.error("storage_refused", path=request.url.path, exc_info=error)
    return error_response(
        503,
        "The service's storage refuses access to the service; its operator has to mend that.",
        code="storage_refused",
        type="server_error",
    )


def _render_database(request: Request, error: Exception) -> JSONResponse:
    """No connection was free in time, or the database is away or locked: worth another try."""
    log.error("database_unavailable", path=request.url.path, exc_info=error)
    return error_response(
        503,
        "The service's database does not answer at the moment; try again.",
        code="database_unavailable",
        headers={"retry-after": "1"},
    )


def _render_schema(request: Request, error: Exception) -> JSONResponse:
    """Another version's database: what to run is the operator's to know, and stands in the log."""
    log.error("schema_of_another_version", path=request.url.path, error=str(error))
    return error_response(
        503,
        "The service is being upgraded; try again in some minutes.",
        code=SchemaError.code,
        headers={"retry-after": "60"},
    )

"""What operators ask and tenants must not: `/readyz` and `/metrics`, on a port of their own.

The port needs no key, so it is for the operator's network alone. It has a thread and an event loop of its own: it
answers while tenants keep the other one busy.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from gateway.errors import add_error_handlers
from gateway.http import health, http_metrics
from gateway.http.access_log import AccessLog
from gateway.http.outages import add_outage_handlers
from gateway.http.security_headers import SecurityHeaders


def operations_app(app: FastAPI) -> FastAPI:
    """The application beside `app`, of the same services and counters."""
    operations = FastAPI(title="Tunegate operations", docs_url=None, redoc_url=None, openapi_url=None)
    operations.state.services, operations.state.metrics = app.state.services, app.state.metrics
    operations.add_middleware(SecurityHeaders)
    operations.add_middleware(AccessLog)
    add_error_handlers(operations)
    add_outage_handlers(operations, store_url=app.state.services.settings.store_url)
    for router in (health.router, health.readiness, http_metrics.router):
        operations.include_router(router)
    return operations


@contextmanager
def served_beside(operations: FastAPI, *, host: str, port: int) -> Iterator[None]:
    """Serve for the time of the block; a port that is taken ends the process before the other one opens."""
    configuration = uvicorn.Config(
        operations, host=host, port=port, access_log=False, server_header=False, lifespan="off", log_config=None
    )
    server, socket = uvicorn.Server(configuration), configuration.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, name="operations", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        socket.close()

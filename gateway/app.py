"""The gateway as an ASGI application."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import APIRouter, FastAPI

from gateway.db import Database
from gateway.dependencies import Services
from gateway.errors import add_error_handlers
from gateway.files import endpoints as files
from gateway.files.uploads_under_way import UploadsUnderWay
from gateway.fine_tuning import endpoints as fine_tuning
from gateway.fine_tuning import reports
from gateway.http import health, not_offered
from gateway.http.access_log import AccessLog
from gateway.http.body_limit import BodyLimit
from gateway.http.http_metrics import install_metrics
from gateway.http.input_gate import InputGate
from gateway.http.outages import add_outage_handlers
from gateway.http.security_headers import SecurityHeaders
from gateway.kit.answers import refusals
from gateway.kit.clock import Clock, system_clock
from gateway.kit.turns import Turns
from gateway.migrate import refuse_other_schemas
from gateway.models import endpoints as models
from gateway.policy_catalog import PolicyCatalog
from gateway.settings import GatewaySettings
from gateway.tenants.request_limits import RequestLimits
from gateway.uploads import endpoints as uploads
from gateway.workers import endpoints as internal
from policies.contract.store import ArtifactStores

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    internal.router,
    files.router,
    uploads.router,
    models.router,
    fine_tuning.router,
    reports.router,
    not_offered.router,
)
"""Tried in this order: what is asked most, the heartbeats of workers, near the front, and what is not offered last."""


class Gateway(FastAPI):
    """FastAPI, but for its own answer to invalid input, which no route here has: `gateway.errors` makes it a 400."""

    def openapi(self) -> dict[str, Any]:  # Any: the document
        if self.openapi_schema is None:
            document = super().openapi()
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
        return super().openapi()


def build_services(settings: GatewaySettings, clock: Clock = system_clock) -> Services:
    """The services of one process, for the application and for the gateway's own worker."""
    services = Services(
        settings=settings,
        database=Database(settings.database_url),
        stores=ArtifactStores(settings.store_url),
        clock=clock,
        policies=PolicyCatalog.load(settings),
    )
    refuse_other_schemas(services.database.engine)
    services.policies.store_policies(services.stores.shared)
    return services


def create_app(settings: GatewaySettings, clock: Clock = system_clock) -> FastAPI:
    """The application; the database must be at the newest migration (`gateway.migrate.upgrade`)."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs the address of each request, the guard model's too
    settings.worker_tokens()  # without them no worker could ever come in
    # no pages about the API: they load scripts from elsewhere
    app = Gateway(title="Tunegate", docs_url=None, redoc_url=None, redirect_slashes=False, responses=refusals(400))
    app.state.services = build_services(settings, clock)
    app.state.services.policies.require_evaluators(settings)
    app.state.request_limits = RequestLimits(settings.requests_per_minute, clock)
    app.state.uploads = UploadsUnderWay(settings.uploads_at_once)
    app.state.completions = Turns(
        uploads.COMPLETION, at_once=uploads.COMPLETIONS_AT_ONCE, waiting=uploads.COMPLETIONS_WAITING
    )
    app.state.dry_runs = Turns(files.DRY_RUN, at_once=settings.dry_runs_at_once, waiting=settings.dry_runs_waiting)
    app.add_middleware(BodyLimit)
    app.add_middleware(InputGate)
    install_metrics(app, app.state.services)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(AccessLog)  # added last, so outermost
    add_error_handlers(app)
    add_outage_handlers(app, store_url=settings.store_url)
    for router in ROUTERS:
        app.include_router(router)
    return app

"""The gateway as an ASGI application."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from gateway.db import Database
from gateway.dependencies import Services
from gateway.errors import add_error_handlers
from gateway.files import endpoints as files
from gateway.files.dry_runs import DryRuns
from gateway.fine_tuning import endpoints as fine_tuning
from gateway.fine_tuning import reports
from gateway.http import health
from gateway.http.access_log import AccessLog
from gateway.http.body_limit import BodyLimit
from gateway.http.http_metrics import install_metrics
from gateway.kit.clock import Clock, system_clock
from gateway.models import endpoints as models
from gateway.policy_catalog import PolicyCatalog
from gateway.settings import GatewaySettings
from gateway.workers import endpoints as internal
from policies.contract.store import ArtifactStores

ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    files.router,
    models.router,
    fine_tuning.router,
    reports.router,
    internal.router,
)


def build_services(settings: GatewaySettings, clock: Clock = system_clock) -> Services:
    """The services of one process, for the application and for the gateway's own worker."""
    services = Services(
        settings=settings,
        database=Database(settings.database_url),
        stores=ArtifactStores(settings.store_url),
        clock=clock,
        policies=PolicyCatalog.load(settings),
    )
    services.policies.store_policies(services.stores.shared)
    return services


def create_app(settings: GatewaySettings, clock: Clock = system_clock) -> FastAPI:
    """The application; the database must be at the newest migration (`gateway.migrate.upgrade`)."""
    settings.worker_tokens()  # without them no worker could ever come in
    app = FastAPI(title="Tunegate", docs_url="/docs", redoc_url=None)
    app.state.services = build_services(settings, clock)
    app.state.dry_runs = DryRuns(at_once=settings.dry_runs_at_once, waiting=settings.dry_runs_waiting)
    app.add_middleware(BodyLimit)
    install_metrics(app, app.state.services)
    app.add_middleware(AccessLog)  # added last, so outermost
    add_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app

"""`/healthz`: the process answers. `/readyz`: it can do its work."""

from __future__ import annotations

from fastapi import APIRouter

from gateway.dependencies import Services, ServicesDep
from gateway.errors import Unavailable
from gateway.migrate import SchemaError, require_at_head

router = APIRouter(tags=["operation"])
readiness = APIRouter(tags=["operation"])
"""Of the operator's port: it costs a write, and says what is wrong inside."""


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Asynchronous: it must answer while every thread is taken."""
    return {"status": "ok"}


@readiness.get("/readyz")
def readyz(services: ServicesDep) -> dict[str, str]:
    check_migrations(services)
    check_store(services)
    return {"status": "ready"}


def check_migrations(services: Services) -> None:
    try:
        require_at_head(services.database.engine)
    except SchemaError as error:
        raise Unavailable(str(error), code=error.code) from error


def check_store(services: Services) -> None:
    """A write and a read, because a store that lost its credentials still lists."""
    digest = services.stores.shared.put_bytes(b"ready?\n")
    services.stores.shared.read_bytes(digest)

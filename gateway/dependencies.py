"""What endpoints are given: the services of the process and one transaction per request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from gateway.db import Database
from gateway.kit.clock import Clock
from gateway.policy_catalog import PolicyCatalog
from gateway.settings import GatewaySettings
from policies.contract.store import ArtifactStores


@dataclass(frozen=True)
class Services:
    """Everything an endpoint or a task of the gateway works with; one per process, in `app.state.services`."""

    settings: GatewaySettings
    database: Database
    stores: ArtifactStores
    clock: Clock
    policies: PolicyCatalog

    def now(self) -> int:
        """Unix seconds, as the API shows time."""
        return int(self.clock())


def has_room(services: Services) -> bool:
    """Whether the store may take something large; also where it does not say how full it is."""
    free = services.stores.shared.free_bytes()
    return free is None or free >= services.settings.min_free_bytes


async def get_services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


async def get_session(services: ServicesDep) -> Session:
    """Not begun yet: asynchronous, so that no thread is spent on it."""
    return services.database.session()


SessionDep = Annotated[Session, Depends(get_session)]
"""The transaction of the request. `gateway.routes` begins it before the endpoint and commits when that returns, before
any byte of the response is sent, so a client never reads a success that the database then refuses."""

"""Which tenant calls. Credentials of workers open none of these doors: `gateway.workers.credentials`."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy import select, update

from gateway.dependencies import Services
from gateway.errors import Unauthorized
from gateway.kit.hashing import sha256_hex
from gateway.tables.tenancy import ApiKey, Tenant
from gateway.tenants.keys import is_well_formed

LAST_USED_RESOLUTION_SECONDS = 60
"""`last_used_at` is written at most this often, so that reads stay reads."""


class Principal(NamedTuple):
    """The tenant that a request speaks for."""

    tenant_id: str
    tenant_name: str
    policy: str
    """Name of the release policy that the operator bound the tenant to."""
    key_id: str


_CALLER = (
    select(Tenant.id, Tenant.name, Tenant.policy, ApiKey.id, ApiKey.last_used_at)
    .join(Tenant, Tenant.id == ApiKey.tenant_id)
    .where(ApiKey.revoked_at.is_(None))
)
"""A `Principal`, and when its key was last used."""


def authenticate(services: Services, key: str) -> Principal:
    """The tenant of `key`, in a transaction of its own so that no lock is held while the request runs."""
    if not is_well_formed(key):
        raise Unauthorized("Incorrect API key provided: it is not a key of this service.")
    now = services.now()
    with services.database.reading() as session:
        found = session.execute(_CALLER.where(ApiKey.key_hash == sha256_hex(key))).one_or_none()
    if found is None:
        raise Unauthorized("Incorrect API key provided: it is unknown or revoked.")
    *caller, last_used_at = found
    principal = Principal(*caller)
    if last_used_at is None or now - last_used_at >= LAST_USED_RESOLUTION_SECONDS:
        with services.database.transaction() as session:
            session.execute(update(ApiKey).where(ApiKey.id == principal.key_id).values(last_used_at=now))
    return principal


_SCHEME = HTTPBearer(auto_error=False, description="An API key: `Authorization: Bearer sk-tg-…`.")


def read_bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthorized("No API key provided: send it as `Authorization: Bearer KEY`.")
    return token.strip()


async def bearer_token(request: Request) -> str:
    return read_bearer(request)


BearerToken = Annotated[str, Depends(bearer_token)]


async def current_tenant(request: Request, _: Annotated[object, Depends(_SCHEME)]) -> Principal:
    """Whom the route has authenticated before it read the body; the scheme is there for the description of the API."""
    principal = request.state.principal
    assert isinstance(principal, Principal)
    return principal


CurrentTenant = Annotated[Principal, Depends(current_tenant)]

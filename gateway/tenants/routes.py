"""Routes that know who calls before they read a byte of the body."""

from __future__ import annotations

from collections.abc import Callable, Coroutine

from anyio import to_thread
from fastapi import Request, Response

from gateway.dependencies import get_services
from gateway.routes import Route
from gateway.tenants.auth import authenticate, read_bearer
from gateway.tenants.request_limits import RequestLimits

Handler = Callable[[Request], Coroutine[None, None, Response]]


class TenantRoute(Route):
    """Authenticates from the headers, counts the request against the key's limit, then lets FastAPI read the rest."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def for_tenant(request: Request) -> Response:
            services, limits = await get_services(request), request.app.state.request_limits
            assert isinstance(limits, RequestLimits)
            principal = await to_thread.run_sync(authenticate, services, read_bearer(request))
            request.state.principal = principal
            request.state.tenant, request.state.key = principal.tenant_id, principal.key_id  # for the access log
            allowance = limits.take(principal.key_id)
            response = await handle(request)
            response.headers.update(allowance.headers)
            return response

        return for_tenant

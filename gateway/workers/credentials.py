"""Which worker calls: its kind, by the credential that all workers of a kind share, and itself, by a key of its own.

A worker makes its key up when it claims and sends it with every call about that attempt. An attempt's token is part of
URLs, so it may stand in a log; without the key, and without a credential of the same kind, it opens nothing.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, NamedTuple

from fastapi import Depends, Path, Request, Response

from gateway.dependencies import get_services
from gateway.errors import Forbidden, Unauthorized
from gateway.jobs.repository import AttemptProof
from gateway.kit.hashing import sha256_hex
from gateway.routes import WorkerRoute
from gateway.settings import GatewaySettings
from gateway.tenants.auth import read_bearer
from policies.contract.tasks import WORKER_KEY_HEADER
from policies.contract.worker_api import WorkKind

MIN_KEY_LENGTH, MAX_KEY_LENGTH = 32, 128


class Caller(NamedTuple):
    """A worker by what its headers say."""

    kind: WorkKind
    key_hash: str


class CredentialRoute(WorkerRoute):
    """Looks at the credentials before a byte of the body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[None, None, Response]]:
        handle = super().get_route_handler()

        async def for_worker(request: Request) -> Response:
            settings = (await get_services(request)).settings
            request.state.caller = Caller(_kind(settings, read_bearer(request)), _key_hash(request))
            return await handle(request)

        return for_worker


def _kind(settings: GatewaySettings, token: str) -> WorkKind:
    """What the credential allows; all are compared, so that the time tells nothing about either."""
    expected = settings.worker_tokens().items()
    matching = [kind for kind, secret in expected if hmac.compare_digest(token.encode(), secret.encode())]
    if not matching:
        raise Unauthorized("This is not the credential of a worker.", code="invalid_worker_credential")
    return matching[0]


def _key_hash(request: Request) -> str:
    key = request.headers.get(WORKER_KEY_HEADER, "")
    if not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH:
        raise Unauthorized(
            f"A worker sends a key of its own, of at least {MIN_KEY_LENGTH} characters, in {WORKER_KEY_HEADER}.",
            code="invalid_worker_credential",
        )
    return sha256_hex(key)


async def caller_of(request: Request) -> Caller:
    caller = request.state.caller
    assert isinstance(caller, Caller)
    return caller


CallerDep = Annotated[Caller, Depends(caller_of)]


async def attempt_proof(caller: CallerDep, attempt_token: Annotated[str, Path(max_length=64)]) -> AttemptProof:
    return AttemptProof(attempt_token, caller.kind, caller.key_hash)


ProofDep = Annotated[AttemptProof, Depends(attempt_proof)]


def require_kind(caller: Caller, wanted: WorkKind) -> None:
    """A trainer asks for trainings only, an evaluator for evaluations only."""
    if caller.kind != wanted:
        raise Forbidden(f"This credential is not one that may {wanted}.")

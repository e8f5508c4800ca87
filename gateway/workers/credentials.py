"""Which worker calls: its kind, by the credential that all workers of a kind share, and itself, by a key of its own.

A worker makes its key up when it claims and sends it with every call about that attempt. An attempt's token is part of
URLs, so it may stand in a log; without the key, and without a credential of the same kind, it opens nothing.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends, Header, Path

from gateway.dependencies import ServicesDep
from gateway.errors import Forbidden, Unauthorized
from gateway.jobs.repository import AttemptProof
from gateway.kit.hashing import sha256_hex
from gateway.tenants.auth import BearerToken
from policies.contract.tasks import WORKER_KEY_HEADER
from policies.contract.worker_api import WorkKind

MIN_KEY_LENGTH, MAX_KEY_LENGTH = 32, 128


def calling_kind(services: ServicesDep, token: BearerToken) -> WorkKind:
    """What the credential allows; all are compared, so that the time tells nothing about either."""
    expected = services.settings.worker_tokens()
    matching = [kind for kind, secret in expected.items() if hmac.compare_digest(token.encode(), secret.encode())]
    if not matching:
        raise Unauthorized("This is not the credential of a worker.", code="invalid_worker_credential")
    return matching[0]


def worker_key_hash(key: Annotated[str, Header(alias=WORKER_KEY_HEADER)] = "") -> str:
    if not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH:
        raise Unauthorized(
            f"A worker sends a key of its own, of at least {MIN_KEY_LENGTH} characters, in {WORKER_KEY_HEADER}.",
            code="invalid_worker_credential",
        )
    return sha256_hex(key)


CallingKind = Annotated[WorkKind, Depends(calling_kind)]
WorkerKeyHash = Annotated[str, Depends(worker_key_hash)]


def attempt_proof(
    kind: CallingKind, key_hash: WorkerKeyHash, attempt_token: Annotated[str, Path(max_length=64)]
) -> AttemptProof:
    return AttemptProof(attempt_token, kind, key_hash)


ProofDep = Annotated[AttemptProof, Depends(attempt_proof)]


def require_kind(caller: WorkKind, wanted: WorkKind) -> None:
    """A trainer asks for trainings only, an evaluator for evaluations only."""
    if caller != wanted:
        raise Forbidden(f"This credential is not one that may {wanted}.")

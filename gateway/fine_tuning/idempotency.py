"""`Idempotency-Key` on create: the key row is inserted first and commits together with the job."""

from __future__ import annotations

import re
from typing import NamedTuple

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from gateway.errors import InvalidRequest
from gateway.fine_tuning.schemas import CreateJobRequest
from gateway.kit.hashing import sha256_hex
from gateway.tables.tenancy import IdempotencyKey

MAX_KEY_LENGTH = 255
KEY = re.compile(rf"[ -~]{{1,{MAX_KEY_LENGTH}}}")
"""A header has no encoding of its own beyond ASCII, so anything else would be read in two ways."""


class KeyClaim(NamedTuple):
    """A request that wants its `Idempotency-Key` to stand for the job that it is about to create."""

    key: str
    request: CreateJobRequest
    job_id: str
    created_at: int


def claim_key(session: Session, tenant_id: str, claim: KeyClaim) -> str:
    """Let the key stand for the claim's job, unless it stands for an earlier one; the id of the job it stands for.

    The insert decides: of two requests at once the second waits for the first one's commit and then finds the key.

    Raises:
        InvalidRequest: the key is of another request, or too long.
    """
    key, request, job_id, created_at = claim
    if not KEY.fullmatch(key):
        message = f"Idempotency-Key has 1 to {MAX_KEY_LENGTH} printable ASCII characters."
        raise InvalidRequest(message, "Idempotency-Key", "invalid_idempotency_key")
    body_hash = sha256_hex(request.model_dump_json())
    row = IdempotencyKey(tenant_id=tenant_id, key=key, body_hash=body_hash, job_id=job_id, created_at=created_at)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        earlier = session.get_one(IdempotencyKey, (tenant_id, key))
        if earlier.body_hash != body_hash:
            message = "This Idempotency-Key was used for another request; use a new key for a new job."
            raise InvalidRequest(message, "Idempotency-Key", "idempotency_key_reused") from None
        return earlier.job_id
    return job_id

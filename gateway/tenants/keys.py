"""Tenants and their API keys: `sk-tg-` + 40 random characters + 6 of checksum, stored as SHA-256."""

from __future__ import annotations

import hmac
import re
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.errors import InvalidRequest, NotFound
from gateway.kit.hashing import CHECKSUM_LENGTH, crc32_base62, sha256_hex
from gateway.kit.ids import new_id, random_base62
from gateway.tables.tenancy import ApiKey, Tenant

PREFIX = "sk-tg-"
SECRET_LENGTH = 40
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Part of model names, where `:` divides."""


class IssuedKey(NamedTuple):
    """A new key; `secret` is shown once."""

    row: ApiKey
    secret: str


def create_tenant(session: Session, name: str, *, policy: str, now: int, organisation: str | None = None) -> Tenant:
    """With an `organisation`, its tries at the same training data are counted with those of the others that have it."""
    if not TENANT_NAME.fullmatch(name):
        raise InvalidRequest(f"Tenant name {name!r}: use up to 64 letters, digits, '.', '_' and '-'.", "tenant")
    if organisation is not None and not TENANT_NAME.fullmatch(organisation):
        message = f"Organisation {organisation!r}: use up to 64 letters, digits, '.', '_' and '-'."
        raise InvalidRequest(message, "organisation")
    tenant = Tenant(id=new_id("org-"), name=name, policy=policy, organisation=organisation, created_at=now)
    session.add(tenant)
    session.flush()
    return tenant


def find_tenant(session: Session, name: str) -> Tenant | None:
    return session.scalar(select(Tenant).where(Tenant.name == name))


def create_key(session: Session, tenant: Tenant, *, now: int, name: str = "default") -> IssuedKey:
    body = PREFIX + random_base62(SECRET_LENGTH)
    secret = body + crc32_base62(body)
    row = ApiKey(
        id=new_id("key_"),
        tenant_id=tenant.id,
        name=name,
        key_hash=sha256_hex(secret),
        redacted=f"{PREFIX}…{secret[-4:]}",
        created_at=now,
    )
    session.add(row)
    session.flush()
    return IssuedKey(row, secret)


def revoke_key(session: Session, key_id: str, *, now: int) -> ApiKey:
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound(f"No API key {key_id!r}.", param="key_id")
    row.revoked_at = row.revoked_at or now
    return row


def list_keys(session: Session) -> list[ApiKey]:
    return list(session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)))


def is_well_formed(key: str) -> bool:
    """Whether the shape and the checksum are right; says nothing about whether the key exists."""
    body, checksum = key[:-CHECKSUM_LENGTH], key[-CHECKSUM_LENGTH:]
    shape = key.isascii() and key.startswith(PREFIX) and len(body) == len(PREFIX) + SECRET_LENGTH
    return shape and hmac.compare_digest(crc32_base62(body), checksum)

"""Tenants and their API keys."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table


class Tenant(Table):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """`org-…`, shown as `organization_id`."""
    name: Mapped[str] = mapped_column(String(64), unique=True)
    policy: Mapped[str] = mapped_column(String(64))
    """Name of the release policy that the operator bound this tenant to."""
    organisation: Mapped[str | None] = mapped_column(String(64), index=True)
    """Whose tenant it is, where the operator made several for one customer; None: it is alone."""
    created_at: Mapped[int]
    validated_at: Mapped[float | None] = mapped_column(Float)
    """When a job of it was last taken up for validation."""
    exports_from: Mapped[float | None] = mapped_column(Float)
    """From when on its metrics may be exported: in the future while an export is under way, and after a failure."""
    stored_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    """Of its files that are not deleted, and of parts that are not swept: kept by `gateway.tenants.quotas`."""


class ApiKey(Table):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    key_hash: Mapped[str] = mapped_column(String(64), unique=True)
    """SHA-256 of the key; the key itself is shown once and never stored."""
    redacted: Mapped[str] = mapped_column(String(32))
    created_at: Mapped[int]
    last_used_at: Mapped[int | None]
    revoked_at: Mapped[int | None]


class IdempotencyKey(Table):
    """A create request that was answered once; the repeat gets the same job."""

    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]

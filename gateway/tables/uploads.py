"""Uploads in parts; the bytes of parts lie in the upload's own store until it has ended and is swept."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table

PENDING = "pending"
ENDED = ("completed", "cancelled", "expired")


class Upload(Table):
    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_tenant_status", "tenant_id", "status"),
        Index("ix_uploads_status_expiry", "status", "expires_at"),
        Index("ix_uploads_received", "received_bytes"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    filename: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(32))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    """Of the whole file, as its tenant announced it."""
    status: Mapped[str] = mapped_column(String(16))
    """`PENDING` or one of `ENDED`."""
    created_at: Mapped[int]
    expires_at: Mapped[int]
    file_expires_after: Mapped[int | None]
    """Seconds that the file lives."""
    n_parts: Mapped[int] = mapped_column(Integer, default=0)
    received_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of its parts that are not swept: a share of `Tenant.stored_bytes`."""
    may_have_bytes: Mapped[bool] = mapped_column(default=False)
    """Whether a part was ever on its way, so that something may lie in the upload's store."""
    sweep_at: Mapped[float] = mapped_column(default=0.0)
    """When a sweep may look at it, in Unix seconds; one that does puts it off for others."""
    n_failed: Mapped[int] = mapped_column(Integer, default=0)
    """Completions whose MD5 was not that of the parts."""
    completion_digest: Mapped[str | None] = mapped_column(String(71))
    """Of the request that completed it, which may come again."""
    file_id: Mapped[str | None] = mapped_column(ForeignKey("files.id"))


class UploadPart(Table):
    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id"), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(71))
    created_at: Mapped[int]

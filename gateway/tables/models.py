"""Released models."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table

MAX_NAME_LENGTH = 255


class Model(Table):
    __tablename__ = "models"

    id: Mapped[str] = mapped_column(String(MAX_NAME_LENGTH), primary_key=True)
    """`ft:{base}:{organisation}:{suffix}:{id}`."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    adapter_digest: Mapped[str] = mapped_column(String(71))
    manifest_digest: Mapped[str] = mapped_column(String(71))
    created_at: Mapped[int]
    deleted_at: Mapped[int | None]

"""Whose metrics go to an experiment tracker, and when next."""

from __future__ import annotations

from sqlalchemy import Float, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table


class MetricsExport(Table):
    """Of a job with integrations."""

    __tablename__ = "metrics_exports"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    due_at: Mapped[float | None] = mapped_column(Float, index=True)
    """None: everything was exported, or it was given up."""
    failures: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    """Since the last export that worked."""
    exported: Mapped[str | None] = mapped_column(String(71))
    """Digest of the last `ExportOrder` that worked; the same one is not carried out again."""
    error_code: Mapped[str | None] = mapped_column(String(64))
    """Of the last failure."""

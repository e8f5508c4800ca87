"""What evaluators found when they looked at base models."""

from __future__ import annotations

from pydantic import JsonValue
from sqlalchemy import JSON, Float, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table


class CheckedBaseModel(Table):
    __tablename__ = "base_model_checks"

    spec_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    """Of the operator's settings: what is changed there is looked at anew."""
    name: Mapped[str] = mapped_column(String(128))
    record: Mapped[dict[str, JsonValue]] = mapped_column(JSON)
    """A `BaseModelCheck`."""
    checked_at: Mapped[float] = mapped_column(Float)
    due_at: Mapped[float] = mapped_column(Float)
    """When it is to be looked at anew."""

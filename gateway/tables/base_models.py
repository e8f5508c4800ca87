"""What evaluators found when they looked at base models."""

from __future__ import annotations

import sqlalchemy as sa
from pydantic import JsonValue
from sqlalchemy import JSON, Boolean, Float, String
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
    is_due: Mapped[bool] = mapped_column(Boolean, server_default=sa.false())
    """Whether it is to be looked at anew, before its day is over."""

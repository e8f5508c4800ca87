"""A line of a job's event log, as it is kept once its row is gone: one a line of a JSONL artifact, oldest first."""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from policies.contract.artifacts import Record


class StoredEvent(Record):
    """What the row had, and what the API still shows."""

    sequence: int
    """Orders the events, of all jobs together."""
    id: str
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: str
    data: dict[str, JsonValue] | None

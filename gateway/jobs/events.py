"""The event log of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy.orm import Session

from gateway.kit.ids import new_id
from gateway.tables.jobs import Job, JobEvent

Level = Literal["info", "warn", "error"]
EventData = Mapping[str, Any]  # Any: OpenAI's free object; ours are flat but for `moderation_checks`


def record_event(  # noqa: PLR0913  # three of them are the line itself
    session: Session, job: Job, message: str, *, now: float, level: Level = "info", data: EventData | None = None
) -> None:
    """Add a line of type `message`."""
    add_event(session, job, JobEvent(level=level, message=message, type="message", data=dict(data or {})), now=now)


def add_event(session: Session, job: Job, event: JobEvent, *, now: float) -> None:
    assert job.events_digest is None, f"the events of job {job.id} are in a record, which takes no more"
    event.id = new_id("ftevent-")
    event.job_id = job.id
    event.created_at = int(now)
    session.add(event)

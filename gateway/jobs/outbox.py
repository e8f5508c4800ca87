"""Sending what committed: messages leave after their transaction, in order; one that is sent twice does no harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import CursorResult, delete, select
from sqlalchemy.orm import Session

from gateway.tables.jobs import OutboxMessage

BATCH = 100
KEEP_SENT_SECONDS = 3600.0

Send = Callable[[str, str, Sequence[object]], None]
"""Task name, queue, arguments; raises where the broker does not take the message."""


def dispatch(session: Session, send: Send) -> int:
    """Send what is waiting, at most `BATCH` messages; returns how many left.

    Where `send` raises, nothing of the batch is marked: the next round sends it again, doubles included.
    """
    waiting = select(OutboxMessage).where(OutboxMessage.sent.is_(False)).order_by(OutboxMessage.id).limit(BATCH)
    messages = session.scalars(waiting.with_for_update(skip_locked=True)).all()
    for message in messages:
        send(message.task, message.queue, message.arguments)
        message.sent = True
    return len(messages)


def forget_sent(session: Session, now: float) -> int:
    """Delete messages that were sent long ago."""
    old = delete(OutboxMessage).where(OutboxMessage.sent.is_(True), OutboxMessage.created_at < now - KEEP_SENT_SECONDS)
    result = session.execute(old)
    assert isinstance(result, CursorResult)
    return result.rowcount

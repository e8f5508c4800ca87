"""Sending what committed: messages leave after their transaction, in order; one that is sent twice does no harm."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.orm import Session

from gateway.tables.jobs import OutboxMessage

BATCH = 100
KEEP_SENT_SECONDS = 3600.0

Send = Callable[[str, str, Sequence[object]], None]
"""Task name, queue, arguments; raises where the broker does not take the message."""

log = structlog.get_logger(__name__)


class QueueRefusedError(RuntimeError):
    """The broker answered, but does not take messages for this queue: a worker of that queue may have spoilt it."""


def dispatch(session: Session, send: Send) -> int:
    """Send what is waiting, at most `BATCH` messages of each queue; returns how many left.

    A queue that refuses holds up no other. Where `send` raises anything else, nothing of this round is marked: the next
    one sends it again, doubles included.
    """
    waiting = select(OutboxMessage.queue).where(OutboxMessage.sent.is_(False)).group_by(OutboxMessage.queue)
    queues = session.scalars(waiting.order_by(func.min(OutboxMessage.id))).all()
    return sum(_dispatch_to(session, send, queue) for queue in queues)


def _dispatch_to(session: Session, send: Send, queue: str) -> int:
    waiting = select(OutboxMessage).where(OutboxMessage.sent.is_(False), OutboxMessage.queue == queue)
    waiting = waiting.order_by(OutboxMessage.id).limit(BATCH)
    n_sent = 0
    for message in session.scalars(waiting.with_for_update(skip_locked=True)).all():
        try:
            send(message.task, message.queue, message.arguments)
        except QueueRefusedError as refusal:
            log.error("queue_refused", queue=queue, error=str(refusal))
            break
        message.sent = True
        n_sent += 1
    return n_sent


def forget_sent(session: Session, now: float) -> int:
    """Delete messages that were sent long ago."""
    old = delete(OutboxMessage).where(OutboxMessage.sent.is_(True), OutboxMessage.created_at < now - KEEP_SENT_SECONDS)
    result = session.execute(old)
    assert isinstance(result, CursorResult)
    return result.rowcount

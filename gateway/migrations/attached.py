"""Whether other processes have the database open, which must not be migrated under them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from sqlalchemy import Connection, text

MIGRATING = 0x74756E6567617465
"""PostgreSQL's advisory lock of whoever migrates, so that gateways which start together take turns."""
WAIT_MILLISECONDS = 3000
"""How long SQLite waits for the others to be gone."""
LINGERING = 2.0
"""Seconds; the same on PostgreSQL."""


class Kept(NamedTuple):
    """How a connection keeps the database for itself."""

    dialect: str
    is_alone: bool
    """On SQLite; PostgreSQL says who is there."""

    def wait_for_turn(self, connection: Connection) -> None:
        """Until the transaction ends. On SQLite its beginning was the turn."""
        if self.dialect == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})


@contextmanager
def kept_for_itself(connection: Connection) -> Iterator[Kept]:
    """Outside of a transaction. SQLite leaves WAL mode for the time of the block, which it can only where it is alone.

    Every process that has opened the file holds it until it closes it, whether it is at work or not.
    """
    dialect = connection.dialect.name
    if dialect != "sqlite":
        yield Kept(dialect, is_alone=True)
        return
    raw = connection.connection.dbapi_connection
    assert isinstance(raw, sqlite3.Connection)
    raw.execute(f"PRAGMA busy_timeout={WAIT_MILLISECONDS}")
    try:
        raw.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError:
        yield Kept(dialect, is_alone=False)
        return
    try:
        yield Kept(dialect, is_alone=True)
    finally:
        with suppress(sqlite3.OperationalError):  # one that came meanwhile has the file, and sets it as well
            raw.execute("PRAGMA journal_mode=WAL")


def is_open_elsewhere(connection: Connection, kept: Kept) -> bool:
    """PostgreSQL shows a session for a moment after its process has left, so it is asked again for `LINGERING`."""
    if not kept.is_alone:
        return True
    until = time.monotonic() + LINGERING
    while _sessions(connection):
        if time.monotonic() > until:
            return True
        time.sleep(0.05)
        connection.execute(text("SELECT pg_stat_clear_snapshot()"))  # else a transaction sees what it saw before
    return False


def others(connection: Connection) -> str:
    """Who they are, to be put after what is said of them; SQLite doesn't tell."""
    named = ", ".join(_sessions(connection))
    return f" ({named})" if named else ""


def _sessions(connection: Connection) -> list[str]:
    """Those of the same user; one that only waits to migrate is left out."""
    if connection.dialect.name != "postgresql":
        return []
    statement = (
        "SELECT application_name, pid, coalesce(host(client_addr), 'this machine') FROM pg_stat_activity"
        " WHERE datname = current_database() AND usename = current_user AND backend_type = 'client backend'"
        " AND pid <> pg_backend_pid() AND application_name <> current_setting('application_name') ORDER BY pid"
    )
    rows = connection.execute(text(statement))
    return [f"{name or 'without a name'}, process {pid} of PostgreSQL, from {host}" for name, pid, host in rows]

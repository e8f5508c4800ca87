"""The database: engine, sessions and the declarative base. One request or task is one transaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

MAX_CONNECTIONS = 52
"""Of one process: one for each thread that may want one (`gateway.routes`), and a few for the operator's port."""
POOL = {"pool_size": MAX_CONNECTIONS, "max_overflow": 0, "pool_timeout": 10.0}


READS = "tunegate_reads"
"""Execution option of a transaction that writes nothing, so that on SQLite it waits for no writer."""


class Table(DeclarativeBase):
    """Base of all tables."""


def make_engine(url: str, *, name: str = "tunegate") -> Engine:
    """An engine for PostgreSQL or SQLite; SQLite runs in WAL mode and locks when a transaction begins.

    `name` is what its connections call themselves to PostgreSQL.
    """
    if not url.startswith("sqlite"):
        named = {"application_name": name}
        return create_engine(url, pool_pre_ping=True, json_serializer=_stored_json, connect_args=named, **POOL)
    arguments = {"timeout": 30, "check_same_thread": False}
    in_memory = make_url(url).database in (None, "", ":memory:")  # one thread's own, so no pool
    pool = {} if in_memory else POOL
    engine = create_engine(url, connect_args=arguments, json_serializer=_stored_json, **pool)

    @event.listens_for(engine, "connect")
    def _configure(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # sqlite3: we send BEGIN ourselves
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        """One writer after the other from the start: a transaction that turned to writing later could only fail."""
        reads = connection.get_execution_options().get(READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _stored_json(value: object) -> str:
    """One form on both databases: UTF-8, in which SQLite finds a key by its own letters, and no NaN."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


class Database:
    """Hands out sessions that commit when their block ends well and roll back when it raises."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        with self._sessions.begin() as session:
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that writes nothing."""
        with self._sessions() as session, begun(session, reads=True):
            yield session

    def session(self) -> Session:
        """A session that somebody else begins (with `begun`) and ends."""
        return self._sessions()

    def close(self) -> None:
        self.engine.dispose()


@contextmanager
def begun(session: Session, *, reads: bool) -> Iterator[None]:
    """The transaction of a session, committed in the end; one that `reads` must not write.

    On PostgreSQL each statement sees what was committed before it, in a transaction or not, so one that only reads is
    none there: to begin and to end it would cost two more round trips.
    """
    with session.begin():
        if reads and session.get_bind().dialect.name == "postgresql":
            session.connection(execution_options={READS: True, "isolation_level": "AUTOCOMMIT"})
        else:
            session.connection(execution_options={READS: reads})
        yield


@contextmanager
def one_transaction(url: str) -> Iterator[Session]:
    """For a command, which needs the database once."""
    database = Database(url)
    try:
        with database.transaction() as session:
            yield session
    finally:
        database.close()

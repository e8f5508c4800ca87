"""What reads is no transaction on PostgreSQL, and what writes still is one."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from gateway.db import MAX_CONNECTIONS, Database
from gateway.tables.tenancy import Tenant


def write_twice(database: Database, *, name: str) -> None:
    with database.transaction() as session:
        for id_ in ("org-1", "org-2"):
            session.add(Tenant(id=id_, name=name, policy="baseline", created_at=0))
            session.flush()


def test_a_write_is_rolled_back_also_on_a_connection_that_was_read_on_before(database_url: str) -> None:
    """Each connection of the pool, as it is handed out next, has read; a tenant that is written and refused is gone."""
    database = Database(database_url)
    try:
        for number in range(MAX_CONNECTIONS + 1):
            with database.reading() as session:
                assert session.scalars(select(Tenant)).all() == []
            with pytest.raises(IntegrityError):
                write_twice(database, name=f"tenant-{number}")
    finally:
        database.close()


def test_what_another_wrote_is_read_at_once(database_url: str) -> None:
    reader, writer = Database(database_url), Database(database_url)
    try:
        for number in range(3):
            with writer.transaction() as session:
                session.add(Tenant(id=f"org-{number}", name=f"tenant-{number}", policy="baseline", created_at=0))
            with reader.reading() as session:
                assert len(session.scalars(select(Tenant)).all()) == number + 1
    finally:
        reader.close()
        writer.close()

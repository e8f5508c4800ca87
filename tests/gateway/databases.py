"""Databases for tests of the gateway, SQLite's and PostgreSQL's, each a copy of one that was migrated before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

import pytest

from gateway.db import Table
from gateway.migrate import upgrade
from tests.postgres import PostgresServer, postgres_binaries

KINDS = ("sqlite", "postgresql")


class Databases(Protocol):
    """Makes databases of one kind; each is gone when its block ends."""

    @contextmanager
    def empty(self) -> Iterator[str]:
        """The URL of a database without tables."""

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """The URL of an empty database at the newest migration."""


class SqliteDatabases:
    """Files in a folder, which is somebody else's to delete."""

    def __init__(self, folder: Path) -> None:
        self._paths = (folder / f"database-{number}.db" for number in count())

    @contextmanager
    def empty(self) -> Iterator[str]:
        yield f"sqlite:///{next(self._paths)}"

    @contextmanager
    def migrated(self) -> Iterator[str]:
        path = next(self._paths)
        path.write_bytes(migrated_file())
        yield f"sqlite:///{path}"


@cache
def migrated_file() -> bytes:
    with TemporaryDirectory() as folder:
        upgrade(f"sqlite:///{folder}/gateway.db")
        return Path(folder, "gateway.db").read_bytes()


class PostgresDatabases:
    """Databases of one server, which starts with the first of them and ends with `close`.

    A migrated database is emptied and lent again, which takes a tenth of the time of making one.
    """

    def __init__(self, binaries: Path) -> None:
        self._opened = ExitStack()
        self._server = PostgresServer(binaries)
        self._opened.callback(self._server.close)
        self._template = self._opened.enter_context(self._server.database())
        upgrade(self._server.url(self._template))
        with self._server.connect(self._template) as connection:
            self._version = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        self._free: list[str] = []

    def close(self) -> None:
        self._opened.close()

    @contextmanager
    def empty(self) -> Iterator[str]:
        with self._server.database() as name:
            yield self._server.url(name)

    @contextmanager
    def migrated(self) -> Iterator[str]:
        name = self._free.pop() if self._free else self._opened.enter_context(self._server.database(self._template))
        try:
            yield self._server.url(name)
        finally:
            self._server.disconnect(name)
            if self._is_emptied(name):
                self._free.append(name)

    def _is_emptied(self, name: str) -> bool:
        """Leaves what the migrations made; False where a test has left another schema."""
        tables = [table.fullname for table in reversed(Table.metadata.sorted_tables)]
        with self._server.connect(name) as connection:
            if connection.execute("SELECT version_num FROM alembic_version").fetchone() != self._version:
                return False
            connection.execute("; ".join(f"DELETE FROM {table}" for table in tables).encode())
            return True


@contextmanager
def postgres_databases() -> Iterator[PostgresDatabases]:
    """Skips where PostgreSQL is not installed; where everything must run, that is a failure."""
    binaries = postgres_binaries()
    if binaries is None:
        message = "PostgreSQL is not installed (Debian: postgresql), so nothing of this was tested on it"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    databases = PostgresDatabases(binaries)
    try:
        yield databases
    finally:
        databases.close()

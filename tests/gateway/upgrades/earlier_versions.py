"""Databases and stores as earlier versions of the gateway left them, with a job in every phase.

Each file of `earlier` was written by the code of its migration: that version's gateway served, a worker was played by
hand, and all rows and artifacts were kept in the moment that `now` names. The names of jobs say how far each had come.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

from alembic import command
from sqlalchemy import JSON, Connection, Integer, MetaData, insert

from gateway.db import make_engine
from gateway.migrate import alembic_config

FOLDER = Path(__file__).parent / "earlier"
SEPARATE_STORES = ("0008",)
ONE_STORE = ("0005",)
"""Before tenants' files and what jobs leave behind had stores of their own."""
RUNNING = ("training", "evaluating", "pausing", "cancelling")
ENDED = ("released", "rejected", "failed", "cancelled")


class Earlier(NamedTuple):
    """What one version left behind."""

    revision: str
    jobs: dict[str, str]
    """Id by name: the phase that the job was in; `paused_trained` was paused after its training."""
    files: dict[str, str]
    """`kept` and `gone`, which no job uses."""
    now: float
    rows: list[tuple[str, dict[str, Any]]]  # Any: what a column holds
    store: dict[str, str]

    def row(self, table: str, id: str) -> dict[str, Any]:
        return next(row for name, row in self.rows if name == table and row["id"] == id)


def earlier(revision: str) -> Earlier:
    return Earlier(**json.loads(gzip.decompress((FOLDER / f"{revision}.json.gz").read_bytes())))


def put_back(found: Earlier, *, url: str, store: Path) -> None:
    """Make the database at `url`, empty by now, and the store what they were."""
    for name, content in found.store.items():
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_bytes(content.encode())
    step_to(url, found.revision)
    engine = make_engine(url)
    with engine.begin() as connection:
        _insert(connection, found)
    engine.dispose()


def step_to(url: str, revision: str) -> None:
    """As the version of that revision would have migrated."""
    engine, config = make_engine(url), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def _insert(connection: Connection, found: Earlier) -> None:
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.sorted_tables:
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True
        rows = [
            {name: _value(value) for name, value in row.items()} for name_, row in found.rows if name_ == table.name
        ]
        if rows:
            connection.execute(insert(table), rows)
    if connection.dialect.name == "postgresql":
        _go_on_counting(connection, metadata)


def _value(value: Any) -> Any:  # Any: what a column holds
    return base64.b64decode(value["$bytes"]) if isinstance(value, dict) and set(value) == {"$bytes"} else value


def _go_on_counting(connection: Connection, metadata: MetaData) -> None:
    """That version's rows were numbered by the sequences, which rows with numbers of their own leave alone."""
    for table in metadata.sorted_tables:
        for column in table.primary_key:
            if isinstance(column.type, Integer):
                connection.exec_driver_sql(
                    f"SELECT setval(sequence, (SELECT coalesce(max({column.name}), 1) FROM {table.name}))"
                    f" FROM pg_get_serial_sequence('{table.name}', '{column.name}') AS sequence"
                    " WHERE sequence IS NOT NULL"
                )

"""What a migration must leave as it was, and what it must make: held against the database before it is committed."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, MetaData, func, select, text

from gateway.db import Table
from policies.contract.jobs import Phase
from policies.errors import IntegrityError

VERSIONS = "alembic_version"
_PHASES = ", ".join(f"'{phase.value}'" for phase in Phase)
FAULTS = {
    "jobs in an unknown phase": f"SELECT count(*) FROM jobs WHERE phase NOT IN ({_PHASES})",  # noqa: S608  # constants
    "released jobs without their model": (
        "SELECT count(*) FROM jobs WHERE phase = 'released'"
        " AND NOT EXISTS (SELECT 1 FROM models WHERE models.job_id = jobs.id)"
    ),
    "models of jobs that were not released": (
        "SELECT count(*) FROM models JOIN jobs ON jobs.id = models.job_id WHERE jobs.phase <> 'released'"
    ),
    "jobs that name a model, and none has it": (
        "SELECT count(*) FROM jobs WHERE fine_tuned_model IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM models WHERE models.id = jobs.fine_tuned_model)"
    ),
    "leases of nobody": "SELECT count(*) FROM jobs WHERE lease_until IS NOT NULL AND attempt_token IS NULL"
    " AND phase <> 'validating'",
}
"""What must not become more by a migration: in columns that all versions have."""


class State(NamedTuple):
    """Rows by table, and faults by their name."""

    rows: dict[str, int]
    faults: dict[str, int]


def state_of(connection: Connection) -> State:
    metadata = MetaData()
    metadata.reflect(connection)
    rows = {
        table.name: connection.scalar(select(func.count()).select_from(table)) or 0
        for table in metadata.sorted_tables
        if table.name != VERSIONS
    }
    faults = {name: connection.scalar(text(count)) or 0 for name, count in FAULTS.items()} if "jobs" in rows else {}
    if connection.dialect.name == "sqlite":  # PostgreSQL holds them itself
        faults["rows that name others which are not there"] = len(
            connection.execute(text("PRAGMA foreign_key_check")).all()
        )
    return State(rows, faults)


def require_kept(before: State, after: State, *, emptied: Collection[str]) -> None:
    """Raises `IntegrityError` where rows are gone, other than those of tables `emptied` on purpose, or faults came."""
    lost = [
        f"{table} had {count} rows and would have {after.rows.get(table, 0)}"
        for table, count in before.rows.items()
        if table not in emptied and after.rows.get(table) != count
    ]
    new = [
        f"{count} {name}"
        for name, count in after.faults.items()
        if before.faults and count > before.faults.get(name, 0)
    ]
    if lost or new:
        raise IntegrityError(f"the migration was taken back: {'; '.join([*lost, *new])}")


def require_models(connection: Connection) -> None:
    """Raises `IntegrityError` unless the tables are those that the code works with."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    if differences := compare_metadata(context, Table.metadata):
        raise IntegrityError(f"the migration was taken back: the tables differ from the models: {differences[:3]}")

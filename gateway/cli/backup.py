"""`tunegate backup`: database and artifacts into a folder, back from it, and whether it is whole.

Rows are written as JSON, whatever the database, and artifacts under their digests, so a backup can be read anywhere and
restored into the other kind of database. The database comes first: what its rows name is not deleted at once, so it is
still there when the artifacts are copied.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from alembic import command
from alembic.runtime.migration import MigrationContext
from sqlalchemy import JSON, Connection, Integer, MetaData, Table, func, insert, inspect, select, text

from gateway.db import READS, make_engine
from gateway.migrate import alembic_config, require_known, upgrade
from gateway.settings import GatewaySettings
from policies.contract.artifact_copies import copy_artifacts
from policies.contract.artifacts import Digest, Record, digest_file
from policies.contract.store import ArtifactStores
from policies.environment import read_settings
from policies.errors import ConfigurationError, IntegrityError

app = typer.Typer(no_args_is_help=True)
backup_app = typer.Typer(no_args_is_help=True, help="Database and artifacts, into a folder and back.")
app.add_typer(backup_app, name="backup")

ROWS_FILE, CONTENTS_FILE, STORE_FOLDER = "rows.jsonl.gz", "contents.json", "store"
VERSIONS = "alembic_version"
BATCH = 500
BYTES = "$bytes"
"""Names a column's bytes, in base 64."""

Folder = Annotated[Path, typer.Argument(help="The backup's folder.")]
RowsOnly = Annotated[bool, typer.Option("--rows-only", help="Without the artifacts, which are kept otherwise.")]
Row = dict[str, Any]  # Any: what a column holds


class Contents(Record):
    """What a backup holds."""

    revision: str
    """The migration that its database was at."""
    rows: dict[str, int]
    """By table."""
    rows_file: Digest
    artifacts: int | None
    """None: the artifacts are kept elsewhere."""


@backup_app.command("create")
def create(folder: Folder, rows_only: RowsOnly = False) -> None:
    """Write the database of the settings, then the artifacts, into a folder; artifacts that are there already stay."""
    save(read_settings(GatewaySettings), folder, rows_only=rows_only)


def save(settings: GatewaySettings, folder: Path, *, rows_only: bool) -> None:
    """Write a backup, read its rows again, and say what it has."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / CONTENTS_FILE).unlink(missing_ok=True)  # a backup is whole once this is written
    revision, rows = _write_rows(settings.database_url, folder / ROWS_FILE)
    artifacts = None if rows_only else copy_artifacts(settings.store_url, _store_url(folder))
    contents = Contents(revision=revision, rows=rows, rows_file=digest_file(folder / ROWS_FILE), artifacts=artifacts)
    _require_counted(contents, Counter(table for table, _ in _read_rows(folder)), folder)
    (folder / CONTENTS_FILE).write_bytes(contents.canonical())
    typer.echo(f"{sum(rows.values())} rows and {_named(artifacts)} are in {folder}")


@backup_app.command("verify")
def verify(folder: Folder) -> None:
    """Read the whole backup: rows as counted, every artifact's bytes, and the adapter of each released model."""
    contents = _contents(folder)
    found = Counter[str]()
    stores = ArtifactStores(_store_url(folder))
    for table, row in _read_rows(folder):
        found[table] += 1
        if contents.artifacts is not None:
            _require_named(stores, table, row)
    _require_counted(contents, found, folder)
    n_artifacts = None if contents.artifacts is None else copy_artifacts(_store_url(folder), None)
    _require_all(contents, n_artifacts, folder)
    typer.echo(f"{found.total()} rows and {_named(n_artifacts)} are sound")


@backup_app.command("restore")
def restore(folder: Folder) -> None:
    """Fill the empty database and the store of the settings from a backup, then bring it to the newest migration.

    Jobs that were under way go on: leases have run out, so their work is given to workers again.
    """
    settings, contents = read_settings(GatewaySettings), _contents(folder)
    require_known(contents.revision)
    engine = make_engine(settings.database_url)
    try:
        if inspect(engine).get_table_names():
            raise ConfigurationError(f"the database {engine.url!r} has tables; restore into an empty one")
        if contents.artifacts is not None:
            _require_all(contents, copy_artifacts(_store_url(folder), settings.store_url), folder)
        with engine.connect() as connection:
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, contents.revision)
            connection.commit()
        with engine.begin() as connection:
            _insert_rows(connection, folder)
    finally:
        engine.dispose()
    upgrade(settings.database_url)
    typer.echo(f"{sum(contents.rows.values())} rows are in the database; start the gateway")


def _named(n_artifacts: int | None) -> str:
    return "no artifacts" if n_artifacts is None else f"{n_artifacts} artifacts"


def _require_named(stores: ArtifactStores, table: str, row: Row) -> None:
    """That what a row cannot do without is in the backup."""
    events = row.get("events_digest") if table == "jobs" else None
    if events is not None and not stores.of_job(row["id"]).exists(events):
        raise IntegrityError(f"the record of job {row['id']}'s events is missing")
    is_released = table == "models" and row["deleted_at"] is None
    if is_released and not stores.of_job(row["job_id"]).holds_tree(row["adapter_digest"]):
        raise IntegrityError(f"the adapter of {row['id']} is not whole")


def _require_counted(contents: Contents, found: Counter[str], folder: Path) -> None:
    if found != {table: count for table, count in contents.rows.items() if count}:
        raise IntegrityError(f"{folder}: {ROWS_FILE} has other rows than were written")


def _require_all(contents: Contents, n_artifacts: int | None, folder: Path) -> None:
    missing = (contents.artifacts or 0) - (n_artifacts or 0)
    if missing > 0:
        raise IntegrityError(f"{folder}: {missing} artifacts are missing")


def _store_url(folder: Path) -> str:
    return f"file://{folder.resolve() / STORE_FOLDER}"


def _contents(folder: Path) -> Contents:
    try:
        contents = Contents.model_validate_json((folder / CONTENTS_FILE).read_bytes())
        rows_file = digest_file(folder / ROWS_FILE)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder} is not a whole backup: {error}") from error
    if rows_file != contents.rows_file:
        raise IntegrityError(f"{folder}: {ROWS_FILE} has changed since the backup was made")
    return contents


def _write_rows(url: str, path: Path) -> tuple[str, dict[str, int]]:
    """All rows as of one moment; gives the migration and the number of rows by table."""
    engine = make_engine(url)
    options: dict[str, Any] = {READS: True, "stream_results": True}  # Any: SQLAlchemy's
    if engine.dialect.name == "postgresql":
        options["isolation_level"] = "REPEATABLE READ"
    counts: dict[str, int] = {}
    try:
        with (
            engine.connect().execution_options(**options) as connection,
            gzip.open(path, "wt", encoding="utf-8") as out,
        ):
            revision = MigrationContext.configure(connection).get_current_revision()
            if revision is None:
                raise ConfigurationError(f"the database {engine.url!r} is not migrated; nothing is backed up")
            for table in _tables(connection):
                counts[table.name] = 0
                for row in connection.execute(select(table)).mappings():
                    out.write(json.dumps([table.name, _plain(dict(row))], ensure_ascii=False) + "\n")
                    counts[table.name] += 1
    finally:
        engine.dispose()
    return revision, counts


def _tables(connection: Connection) -> list[Table]:
    """In an order in which rows may be written; those that others refer to come first."""
    metadata = MetaData()
    metadata.reflect(connection)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True
    return [table for table in metadata.sorted_tables if table.name != VERSIONS]


def _plain(row: Row) -> Row:
    return {
        name: {BYTES: base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in row.items()
    }


def _read_rows(folder: Path) -> Iterator[tuple[str, Row]]:
    with gzip.open(folder / ROWS_FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            table, row = json.loads(line)
            yield (
                table,
                {
                    name: base64.b64decode(value[BYTES]) if isinstance(value, dict) and set(value) == {BYTES} else value
                    for name, value in row.items()
                },
            )


def _insert_rows(connection: Connection, folder: Path) -> None:
    tables = {table.name: table for table in _tables(connection)}
    waiting: list[Row] = []
    last = None
    for name, row in _read_rows(folder):
        if waiting and (name != last or len(waiting) >= BATCH):
            connection.execute(insert(tables[str(last)]), waiting)
            waiting = []
        waiting.append(row)
        last = name
    if waiting:
        connection.execute(insert(tables[str(last)]), waiting)
    if connection.dialect.name == "postgresql":
        for table in tables.values():
            _go_on_counting(connection, table)


def _go_on_counting(connection: Connection, table: Table) -> None:
    """Numbers of new rows come after those that were restored."""
    for column in table.primary_key:
        sequence = select(func.pg_get_serial_sequence(table.name, column.name))
        if isinstance(column.type, Integer) and (name := connection.scalar(sequence)):
            last = connection.scalar(select(func.max(column)))
            connection.execute(text("SELECT setval(:name, :last)"), {"name": name, "last": last or 1})

"""Database migrations, run from the installed package: all of them in one transaction, or none.

A process works on the schema of its own version only. What other processes have open is not migrated under them, and a
connection that is opened to a database of another version is closed again, so none of them ever writes into it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.db import READS, make_engine
from gateway.migrations.attached import Kept, is_open_elsewhere, kept_for_itself, others
from gateway.migrations.checks import require_kept, require_models, state_of
from policies.errors import ConfigurationError

NAME = "tunegate upgrade"
"""What a connection that migrates calls itself to PostgreSQL."""


class SchemaError(ConfigurationError):
    """The database is not at the migration that this version of the code works with."""

    code = "migrations_pending"


class Standing(NamedTuple):
    """Where a database is, and what lies before it."""

    revision: str | None
    """None: it is empty."""
    steps: tuple[Script, ...]
    """In the order in which they are to be made."""


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


@cache
def head() -> str:
    found = _scripts().get_current_head()
    assert found is not None
    return found


def standing(connection: Connection) -> Standing:
    """Raises `SchemaError` where the database was migrated by a newer version."""
    revision = MigrationContext.configure(connection).get_current_revision()
    require_known(revision)
    steps = _scripts().iterate_revisions(head(), revision or "base") if revision != head() else ()
    return Standing(revision, tuple(reversed(tuple(steps))))


def upgrade(url: str) -> Standing:
    """Bring the database at `url` to the newest revision, and say where it was; does nothing where it is there already.

    Raises:
        SchemaError: it is a newer version's, or other processes have it open.
        IntegrityError: rows went missing, or the tables are not those of the models; nothing was changed.
    """
    engine = make_engine(url, name=NAME)
    try:
        with engine.connect().execution_options(**{READS: True}) as connection:
            if not (before := standing(connection)).steps:
                return before
        with engine.connect() as connection, kept_for_itself(connection) as kept, connection.begin():
            return _migrate(connection, kept)
    finally:
        engine.dispose()


def require_alone(url: str) -> None:
    """Raises `SchemaError` where other processes have the database open."""
    engine = make_engine(url, name=NAME)
    try:
        with engine.connect() as connection, kept_for_itself(connection) as kept, connection.begin():
            _require_alone(connection, kept)
    finally:
        engine.dispose()


def _require_alone(connection: Connection, kept: Kept) -> None:
    if is_open_elsewhere(connection, kept):
        raise SchemaError(
            f"other processes have the database open{others(connection)}, which must be for the upgrade alone: stop "
            "gateways, gateway workers and validators, then run `tunegate upgrade`"
        )


def _migrate(connection: Connection, kept: Kept) -> Standing:
    """Within the caller's transaction. PostgreSQL and SQLite both take tables back that a transaction changed."""
    kept.wait_for_turn(connection)
    before = standing(connection)  # another process may have been faster
    if not before.steps:
        return before
    if before.revision is not None:
        _require_alone(connection, kept)
    rows = state_of(connection)
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    emptied = {table for step in before.steps for table in getattr(step.module, "EMPTIED", ())}
    require_kept(rows, state_of(connection), emptied=emptied)
    require_models(connection)
    return before


def require_at_head(engine: Engine) -> None:
    """Raises `SchemaError`, which says what to run."""
    with engine.connect().execution_options(**{READS: True}) as connection:
        _require_head(MigrationContext.configure(connection).get_current_revision())


def require_migrated(url: str) -> None:
    """The same for a process that does not migrate, before it begins."""
    engine = make_engine(url)
    try:
        require_at_head(engine)
    finally:
        engine.dispose()


def refuse_other_schemas(engine: Engine) -> None:
    """Let `engine` open no connection to a database of another version.

    Who migrates does so while nobody has a connection, so each that is there afterwards is a new one.
    """

    @event.listens_for(engine, "connect")
    def _check(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute("SELECT version_num FROM alembic_version")
            row = cursor.fetchone()
            _require_head(None if row is None else str(row[0]))
        except BaseException as error:
            connection.close()
            if _says_that_there_is_no_table(error):
                _require_head(None)
            raise
        connection.rollback()


def _says_that_there_is_no_table(error: BaseException) -> bool:
    return getattr(error, "sqlstate", None) == "42P01" or "no such table" in str(error)


def _require_head(revision: str | None) -> None:
    require_known(revision)
    if revision != head():
        where = "has no tables" if revision is None else f"is at {revision}"
        raise SchemaError(f"the database {where}, and this version needs {head()}: run `tunegate upgrade`")


def require_known(revision: str | None) -> None:
    """Raises `SchemaError` where a database, or a backup, is at a revision of a newer version."""
    known = {script.revision for script in _scripts().walk_revisions()}
    if revision is not None and revision not in known:
        raise SchemaError(
            f"the database is at {revision}, which this version does not know (its newest is {head()}): a newer "
            "version migrated it; start that one, or restore the backup from before into an empty database"
        )

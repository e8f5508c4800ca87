"""The upgrade of a database: whole or not at all, alone, with a backup, and never past what the code knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, MetaData, event, select, text

from gateway import migrate
from gateway.db import Table, make_engine
from gateway.migrate import SchemaError, alembic_config, head, require_alone, require_migrated
from gateway.settings import GatewaySettings
from policies.errors import ConfigurationError, IntegrityError
from tests.gateway.conftest import gateway_settings
from tests.gateway.databases import Databases
from tests.gateway.upgrades.conftest import Tunegate
from tests.gateway.upgrades.earlier_versions import earlier, put_back, step_to

Rows = dict[str, list[tuple[object, ...]]]
REVISIONS = [script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()][::-1]


@pytest.fixture
def url(settings: GatewaySettings, store: Path) -> str:
    """Of a database as 0008 left it."""
    put_back(earlier("0008"), url=settings.database_url, store=store)
    return settings.database_url


def rows(url: str) -> Rows:
    """All rows of all tables, the version's among them."""
    engine, metadata = make_engine(url), MetaData()
    with engine.begin() as connection:
        metadata.reflect(connection)
        found = {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=str)
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return found


@contextmanager
def opened(url: str) -> Iterator[None]:
    """As another process has it open, which is not at work at the moment."""
    engine = make_engine(url)
    with ExitStack() as stack:
        stack.callback(engine.dispose)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        yield


def test_what_will_be_done_is_said_and_not_done(url: str, tunegate: Tunegate) -> None:
    before = rows(url)
    said = tunegate("upgrade", "--check")
    assert "The database is at 0008. Migrations:\n  0009  Remember of what kind" in said
    assert "1 awaiting_evaluation, 1 cancelling, 1 evaluating, 2 paused" in said
    assert rows(url) == before


def test_an_upgrade_backs_up_first_and_says_the_way_back(
    url: str, settings: GatewaySettings, tunegate: Tunegate, databases: Databases, tmp_path: Path
) -> None:
    """What is restored from that backup is what was there, migrated."""
    folder = tmp_path / "a backup"
    said = tunegate("upgrade", "--backup", str(folder))
    assert f"run `tunegate backup restore '{folder}'`" in said
    assert "are sound" in tunegate("backup", "verify", str(folder))
    with databases.empty() as other_url:
        (tmp_path / "other").mkdir()
        other = gateway_settings(tmp_path / "other", database_url=other_url)
        tunegate("backup", "restore", str(folder), settings=other)
        assert rows(other_url) == rows(url)
    assert "there is nothing to do" in tunegate("upgrade")


def test_a_backup_of_the_rows_alone_goes_back_into_the_same_store(
    url: str, settings: GatewaySettings, tunegate: Tunegate, databases: Databases, tmp_path: Path
) -> None:
    tunegate("upgrade", "--backup", str(tmp_path / "backup"), "--rows-only")
    assert not (tmp_path / "backup" / "store").exists()
    assert "and no artifacts are sound" in tunegate("backup", "verify", str(tmp_path / "backup"))
    with databases.empty() as other:
        tunegate("backup", "restore", str(tmp_path / "backup"), settings=gateway_settings(tmp_path, database_url=other))
        assert rows(other) == rows(url)


def test_an_upgrade_without_a_backup_has_to_be_asked_for(url: str, tunegate: Tunegate) -> None:
    before = rows(url)
    with pytest.raises(ConfigurationError, match="--no-backup"):
        tunegate("upgrade")
    assert rows(url) == before
    tunegate("upgrade", "--no-backup")
    require_migrated(url)


def test_nothing_is_migrated_under_a_process_that_has_the_database_open(url: str, tunegate: Tunegate) -> None:
    before = rows(url)
    with opened(url):
        for arguments in (["--check"], ["--no-backup"]):
            with pytest.raises(SchemaError, match="other processes have the database open") as error:
                tunegate("upgrade", *arguments)
        with pytest.raises(SchemaError, match="other processes"):
            migrate.upgrade(url)
        if url.startswith("postgresql"):
            assert "(tunegate, process " in str(error.value)
    assert rows(url) == before
    require_alone(url)
    migrate.upgrade(url)


@contextmanager
def failing(when: Callable[[str], bool]) -> Iterator[None]:
    """Let the first statement that fits fail, as a full disk would."""

    def listen(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if when(statement):
            raise OSError("no space left on device")

    event.listen(Engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", listen)


@pytest.mark.parametrize(
    "statement", ["ADD COLUMN worker_key_hash", "CREATE INDEX ix_jobs_training_file", "INSERT INTO job_metadata"]
)
def test_a_migration_that_fails_half_way_leaves_the_database_as_it_was(url: str, statement: str) -> None:
    before = rows(url)
    with failing(lambda sent: statement in sent), pytest.raises(OSError, match="no space left"):
        migrate.upgrade(url)
    assert rows(url) == before
    migrate.upgrade(url)
    require_migrated(url)


def test_a_migration_that_loses_rows_is_taken_back(url: str) -> None:
    before = rows(url)
    removed: list[str] = []

    def lose(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "CREATE INDEX ix_job_metadata_pair" in statement and not removed:
            removed.append(statement)
            cursor.execute("DELETE FROM job_checkpoints")  # type: ignore[attr-defined]  # a driver's cursor

    event.listen(Engine, "before_cursor_execute", lose)
    try:
        with pytest.raises(IntegrityError, match="job_checkpoints had 1 rows and would have 0"):
            migrate.upgrade(url)
    finally:
        event.remove(Engine, "before_cursor_execute", lose)
    assert rows(url) == before


def test_tables_that_are_not_the_models_are_taken_back(url: str) -> None:
    """Somebody has changed the schema by hand: the migrations succeed, and what comes of them is not what is needed."""
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE models ADD COLUMN note VARCHAR(8)"))
    engine.dispose()
    before = rows(url)
    with pytest.raises(IntegrityError, match=r"the tables differ from the models.*note"):
        migrate.upgrade(url)
    assert rows(url) == before


def test_a_database_of_a_newer_version_is_left_alone(url: str, tunegate: Tunegate) -> None:
    migrate.upgrade(url)
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    before = rows(url)
    for refused in (lambda: migrate.upgrade(url), lambda: require_migrated(url), lambda: tunegate("upgrade")):
        with pytest.raises(SchemaError, match=r"9999, which this version does not know .* a newer"):
            refused()
    assert rows(url) == before


def test_a_backup_of_a_newer_version_is_not_restored(
    url: str, settings: GatewaySettings, tunegate: Tunegate, databases: Databases, tmp_path: Path
) -> None:
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    tunegate("backup", "create", str(tmp_path / "backup"))
    with databases.empty() as other, pytest.raises(SchemaError, match="9999"):
        tunegate("backup", "restore", str(tmp_path / "backup"), settings=gateway_settings(tmp_path, database_url=other))


def test_every_migration_runs_on_rows_of_the_first_version(settings: GatewaySettings, store: Path) -> None:
    """One after the other, each with all rows but those that it says it drops; then the tables are the models'."""
    found, url = earlier("0001"), settings.database_url
    put_back(found, url=url, store=store)
    kept = {
        "jobs": 13,
        "models": 1,
        "tenants": 1,
        "outbox": None,
        "job_events": None,
        "files": None,
        "job_checkpoints": 1,
    }
    first = rows(url)
    assert {table: len(first[table]) for table, count in kept.items() if count} == {t: c for t, c in kept.items() if c}
    for revision in REVISIONS[1:]:
        step_to(url, revision)
        now = rows(url)
        assert now["alembic_version"] == [(revision,)]
        assert {table: len(now[table]) for table in kept} == {table: len(first[table]) for table in kept}
    engine = make_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0008"])
def test_every_migration_can_be_taken_back_with_rows(settings: GatewaySettings, store: Path, revision: str) -> None:
    url = settings.database_url
    put_back(earlier(revision), url=url, store=store)
    before = rows(url)
    migrate.upgrade(url)
    engine, config = make_engine(url), alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    engine.dispose()
    assert {name: len(found) for name, found in rows(url).items()} == {
        name: len(found) for name, found in before.items() if name != "job_fingerprints" or revision == "0008"
    }
    assert rows(url)["alembic_version"] == [(revision,)]
    assert head() == REVISIONS[-1]

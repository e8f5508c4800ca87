"""Models and migrations say the same, on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect

from gateway.db import Table, make_engine
from gateway.migrate import SchemaError, alembic_config, require_at_head, upgrade
from tests.gateway.databases import Databases


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    with databases.empty() as url:
        yield url


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    engine = make_engine(empty_url)
    yield engine
    engine.dispose()


def test_migrated_database_has_exactly_the_tables_of_the_models(empty_url: str, engine: Engine) -> None:
    upgrade(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []
    assert {"tenants", "files", "jobs", "models"} <= set(inspect(engine).get_table_names())


def test_upgrading_twice_changes_nothing(empty_url: str, engine: Engine) -> None:
    upgrade(empty_url)
    upgrade(empty_url)
    require_at_head(engine)


def test_every_migration_can_be_taken_back_and_made_again(empty_url: str, engine: Engine) -> None:
    upgrade(empty_url)
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
        connection.commit()
        assert inspect(connection).get_table_names() == ["alembic_version"]
    upgrade(empty_url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []


def test_empty_database_is_not_at_head(engine: Engine) -> None:
    with pytest.raises(SchemaError, match=r"has no tables, and this version needs .*: run `tunegate upgrade`"):
        require_at_head(engine)

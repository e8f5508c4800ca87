"""`tunegate upgrade`: from the database of an earlier version to this one's, with a way back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from alembic.script import Script
from sqlalchemy import Connection, text

from gateway import migrate
from gateway.app import build_services
from gateway.cli.backup import save
from gateway.db import READS, make_engine
from gateway.files.separation import separate_files, unseparated
from gateway.kit.clock import system_clock
from gateway.settings import GatewaySettings
from policies.contract.artifacts import Digest
from policies.contract.store import ArtifactStores
from policies.environment import read_settings
from policies.errors import ConfigurationError

app = typer.Typer()


class Situation(NamedTuple):
    """What an upgrade will find and do."""

    revision: str | None
    steps: tuple[Script, ...]
    jobs: dict[str, int]
    """By phase: those that have not ended."""
    held: list[str]
    """Workers that hold a job under a lease now."""
    files: list[Digest]
    """Tenants' files that have yet to be moved into their store."""


@app.command("upgrade")
def upgrade(
    backup: Annotated[Path | None, typer.Option(help="Folder that a backup is written into first.")] = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="There is one already.")] = False,
    rows_only: Annotated[
        bool, typer.Option("--rows-only", help="Back the artifacts up otherwise; migrations do not touch them.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Back up, bring the database to this version, check it, and say how to go back."""
    settings = read_settings(GatewaySettings)
    found = look(settings)
    _describe(found)
    if not found.steps and not found.files:
        return
    if found.revision is not None:
        migrate.require_alone(settings.database_url)
    if check:
        return
    if found.revision is not None:
        _keep_a_way_back(settings, backup, no_backup=no_backup, rows_only=rows_only)
    migrate.upgrade(settings.database_url)
    typer.echo(f"The database is at {migrate.head()}: rows as before, tables as this version has them.")
    if found.files and rows_only:
        typer.echo("No file was moved: the version from before would miss it where it lay, and the backup has none.")
    elif found.files:
        _separate(settings, found.files)
    if backup is not None and found.revision is not None:
        typer.echo(_way_back(backup))


def look(settings: GatewaySettings) -> Situation:
    """Raises `SchemaError` where the database is a newer version's."""
    engine = make_engine(settings.database_url, name=migrate.NAME)
    try:
        with engine.connect().execution_options(**{READS: True}) as connection:
            revision, steps = migrate.standing(connection)
            if revision is None:
                return Situation(None, steps, {}, [], [])
            files = unseparated(connection, ArtifactStores(settings.store_url))
            return Situation(revision, steps, _under_way(connection), _held(connection), files)
    finally:
        engine.dispose()


def _under_way(connection: Connection) -> dict[str, int]:
    statement = "SELECT phase, count(*) FROM jobs WHERE finished_at IS NULL GROUP BY phase ORDER BY phase"
    return {phase: count for phase, count in connection.execute(text(statement))}


def _held(connection: Connection) -> list[str]:
    statement = "SELECT worker FROM jobs WHERE lease_until > :now AND worker IS NOT NULL ORDER BY worker"
    return list(connection.execute(text(statement), {"now": system_clock()}).scalars())


def _describe(found: Situation) -> None:
    if found.files:
        typer.echo(f"Files of tenants that lie beside what operators provide, to be moved: {len(found.files)}")
    if not found.steps:
        more = "" if found.files else "; there is nothing to do"
        typer.echo(f"The database is at {found.revision}, which is this version's{more}.")
        return
    typer.echo(f"The database {'is empty' if found.revision is None else f'is at {found.revision}'}. Migrations:")
    for step in found.steps:
        typer.echo(f"  {step.revision}  {step.doc}")
    if found.jobs:
        typer.echo("Jobs: " + ", ".join(f"{count} {phase}" for phase, count in found.jobs.items()))
    if found.held:
        typer.echo(
            f"Under a lease: {len(found.held)}, of {', '.join(found.held)}. Workers that are stopped with SIGTERM give "
            "their jobs back; otherwise a job goes to another worker when its lease runs out."
        )


def _keep_a_way_back(settings: GatewaySettings, backup: Path | None, *, no_backup: bool, rows_only: bool) -> None:
    if (backup is None) != no_backup:
        raise ConfigurationError("name a folder for the backup with --backup, or say --no-backup if you have one")
    if backup is not None:
        save(settings, backup, rows_only=rows_only)


def _separate(settings: GatewaySettings, files: list[Digest]) -> None:
    services = build_services(settings)
    try:
        copied, deleted, kept = separate_files(services, files)
    finally:
        services.database.close()
    typer.echo(f"{copied} files were copied into their store; of the old bytes {deleted} are deleted, and {kept} kept.")


def _way_back(backup: Path) -> str:
    restore = shlex.join(["tunegate", "backup", "restore", str(backup)])
    return (
        f"To go back: stop everything, install the version from before, name an empty database in "
        f"TUNEGATE_DATABASE_URL, and run `{restore}`. What was done since the backup is lost."
    )

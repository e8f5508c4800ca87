"""A database of an earlier version, and the command that upgrades it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.commands import COMMANDS
from gateway.settings import GatewaySettings
from policies.cli.main import build_app
from tests.gateway.conftest import gateway_settings
from tests.gateway.databases import Databases

Tunegate = Callable[..., str]


@pytest.fixture
def settings(tmp_path: Path, databases: Databases) -> Iterator[GatewaySettings]:
    """Of an empty database without tables."""
    with databases.empty() as url:
        yield gateway_settings(tmp_path, database_url=url)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of the store of `settings`."""
    return tmp_path / "store"


@pytest.fixture
def tunegate(settings: GatewaySettings) -> Tunegate:
    """Runs a command on the machine of the gateway, and gives what it prints."""

    def run(*arguments: str, settings: GatewaySettings = settings) -> str:
        environment = {"TUNEGATE_DATABASE_URL": settings.database_url, "TUNEGATE_STORE_URL": settings.store_url}
        result = CliRunner().invoke(
            build_app(COMMANDS), list(arguments), env=environment, catch_exceptions=False, standalone_mode=False
        )
        return result.stdout

    return run

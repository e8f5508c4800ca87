"""What the tests of the documentation read: pages, their code, and the `tunegate` command as it is declared."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from policies.cli.lazy_commands import Command, LazyGroup
from policies.cli.main import COMMANDS_GROUP, build_app

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str
    text: str


class Page:
    """A Markdown page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text()
        self.blocks = [Block(path, language, text) for language, text in FENCE.findall(self.text)]
        self.spans = re.findall(r"`([^`\n]+)`", FENCE.sub("", self.text))

    @property
    def coded_words(self) -> set[str]:
        """Every word inside a code span or block: what a page mentions as code."""
        code = "\n".join([*self.spans, *(block.text for block in self.blocks)])
        return set(re.findall(r"\w+", code))

    def section(self, heading: str) -> str:
        """The text below `## heading`."""
        _, found, rest = self.text.partition(f"\n## {heading}\n")
        assert found, f"{self.path.name} has no section {heading!r}"
        return rest.partition("\n## ")[0]


@pytest.fixture
def root() -> Path:
    return ROOT


@pytest.fixture
def page() -> Callable[[str], Page]:
    return lambda name: Page(ROOT / name)


@pytest.fixture
def pages() -> list[Page]:
    found = [Page(path) for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]]
    assert len(found) >= 30
    return found


@pytest.fixture
def gateway_app(tmp_path: Path) -> FastAPI:
    url = f"sqlite:///{tmp_path}/gateway.db"
    upgrade(url)
    settings = GatewaySettings(
        database_url=url,
        store_url=f"file://{tmp_path}/store",
        trainer_token=SecretStr("t" * 40),
        evaluator_token=SecretStr("e" * 40),
    )
    app = create_app(settings)
    with TestClient(app) as client:
        client.get("/healthz")  # the first request makes the metrics of requests
    return app


@pytest.fixture
def commands() -> list[Command]:
    """The commands as pyproject declares them, so that the tree is tested and not what is installed."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][COMMANDS_GROUP]
    return [each for name, value in declared.items() for each in EntryPoint(name, value, COMMANDS_GROUP).load()]


class CommandLine:
    """The `tunegate` command, looked at without running anything."""

    def __init__(self, commands: list[Command]) -> None:
        self._root = typer.main.get_command(build_app(commands))
        assert isinstance(self._root, LazyGroup)
        _load(self._root)

    def paths(self) -> Iterator[str]:
        """`tunegate files upload` and all the others."""
        yield from _paths(self._root, "tunegate")

    def problem(self, arguments: list[str]) -> str | None:
        """Why `tunegate ARGUMENTS…` would not be understood; values are not looked at."""
        command, rest = self._root, list(arguments)
        while hasattr(command, "commands"):
            if not rest:
                return None  # a group by itself shows its help
            if rest[0] not in command.commands:
                return f"{rest[0]!r} is not a command of {command.name}"
            command = command.commands[rest.pop(0)]
        context = typer.Context(command, info_name=command.name)
        try:
            given, left, _ = command.make_parser(context).parse_args(args=rest)
        except typer.TyperException as error:
            return str(error)
        missing = [p.name for p in command.params if p.required and given.get(str(p.name)) in (None, ())]
        return f"missing {missing}, left over {left}" if missing or left else None


def _load(group: LazyGroup) -> None:
    for name in list(group.commands):
        _, command, _ = group.resolve_command(typer.Context(group), [name])
        assert command is not None
        group.commands[name] = command
        if isinstance(command, LazyGroup):
            _load(command)


def _paths(command: object, prefix: str) -> Iterator[str]:
    children = getattr(command, "commands", None)
    if children is None:
        yield prefix
        return
    for name, child in children.items():
        yield from _paths(child, f"{prefix} {name}")


@pytest.fixture
def command_line(commands: list[Command]) -> CommandLine:
    return CommandLine(commands)

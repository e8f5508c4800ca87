"""The `tunegate` command. Packages contribute tuples of `Command` through the entry-point group `tunegate.commands`.

This module is the start of every command line: what it imports, all of them wait for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from policies.cli import exit_codes
from policies.cli.lazy_commands import Command, lazy_group
from policies.cli.printable import printable
from policies.errors import TunegateError
from policies.offline import NO_TELEMETRY

COMMANDS_GROUP = "tunegate.commands"


def main() -> None:
    """Run the command line of this process and exit with one of `policies.cli.exit_codes`."""
    os.environ.update(NO_TELEMETRY)
    sys.exit(run(sys.argv[1:], build_app(declared_commands())))


def declared_commands() -> list[Command]:
    """The commands of all packages that are installed."""
    return [command for entry_point in entry_points(group=COMMANDS_GROUP) for command in entry_point.load()]


def build_app(commands: Iterable[Command]) -> typer.Typer:
    """The root app; a command is imported when it is called."""
    return typer.Typer(cls=lazy_group(commands), no_args_is_help=True, pretty_exceptions_enable=False, callback=_root)


def run(arguments: Sequence[str], app: typer.Typer) -> int:
    """Run one command line; errors become a message on stderr and an exit code."""
    try:
        code = app(arguments, prog_name="tunegate", standalone_mode=False)
    except TunegateError as error:
        typer.echo(printable(f"error: {error} ({error.code})"), err=True)
        return exit_codes.of_error(error)
    except typer.TyperException as error:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]  # its own, private kind of TyperException
        return exit_codes.USAGE
    except typer.Abort:
        typer.echo("aborted", err=True)
        return exit_codes.INTERRUPTED
    return code if isinstance(code, int) else exit_codes.OK


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tunegate {version('tunegate')}")
        raise typer.Exit


def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Fine-tuning with a guardrail: defended training, measured safety, a release gate."""

"""The `tunegate` command. Packages contribute Typer apps through the entry-point group `tunegate.commands`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer
from typer.rich_utils import rich_format_error

from policies.cli import exit_codes
from policies.errors import ConfigurationError, TunegateError

COMMANDS_GROUP = "tunegate.commands"


def main() -> None:
    """Run the command line of this process and exit with one of `policies.cli.exit_codes`."""
    sys.exit(run(sys.argv[1:], build_app(entry_points(group=COMMANDS_GROUP))))


def build_app(commands: Iterable[EntryPoint]) -> typer.Typer:
    """The root app. Each entry point's app is merged at the top level, because it is added without a name."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, callback=_root)
    for entry_point in sorted(commands, key=lambda entry_point: entry_point.name):
        try:
            app.add_typer(entry_point.load())
        except ModuleNotFoundError as error:
            app.add_typer(_unavailable(entry_point, error))
    return app


def run(arguments: Sequence[str], app: typer.Typer) -> int:
    """Run one command line; errors become a message on stderr and an exit code."""
    try:
        code = app(arguments, prog_name="tunegate", standalone_mode=False)
    except TunegateError as error:
        typer.echo(f"error: {error} ({error.code})", err=True)
        return exit_codes.of_error(error)
    except typer.TyperException as error:
        rich_format_error(error)  # type: ignore[arg-type]  # its own, private kind of TyperException
        return exit_codes.USAGE
    except typer.Abort:
        typer.echo("aborted", err=True)
        return exit_codes.INTERRUPTED
    return code if isinstance(code, int) else exit_codes.OK


def _unavailable(entry_point: EntryPoint, error: ModuleNotFoundError) -> typer.Typer:
    """Stands in for commands whose extra is not installed, so that the others work."""
    app = typer.Typer()

    @app.command(
        entry_point.name,
        help=f"Not available: Python package {error.name} is missing.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def missing() -> None:
        raise ConfigurationError(
            f"`tunegate {entry_point.name}` needs the Python package {error.name}; install the extra"
        )

    return app


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

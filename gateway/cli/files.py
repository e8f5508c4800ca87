"""`tunegate files`: those of the tenant, by way of the gateway, and their shapes, for which no gateway is needed."""

from __future__ import annotations

import typer

from policies.cli.lazy_commands import Command, lazy_group

COMMANDS = (
    Command("convert", "gateway.cli.convert:app", "Write a file of another shape as chat or preference rows."),
    Command("upload", "gateway.cli.client:file_app", "Upload a training file.", "gateway"),
    Command("list", "gateway.cli.client:file_app", "List files, newest first.", "gateway"),
    Command(
        "validate",
        "gateway.cli.validate:app",
        "Check a file as a job would, for free; exit code 1 if a job would refuse it.",
    ),
    Command(
        "screen",
        "policies.cli.screen:app",
        "Look for credentials, personal data and repeated rows; exit code 1 if the policy would block the file.",
    ),
    Command("delete", "gateway.cli.client:file_app", "Delete a file.", "gateway"),
)

file_app = typer.Typer(cls=lazy_group(COMMANDS), no_args_is_help=True, help="Files of the tenant.")
app = typer.Typer()
app.add_typer(file_app, name="files")


@file_app.callback()
def files() -> None:
    """Files of the tenant."""

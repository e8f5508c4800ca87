"""`tunegate defense`: what a defense needs for one base model, made once."""

from __future__ import annotations

import typer

from trainer.cli.extract_persona_vector import extract_persona_vector
from trainer.cli.select_safe_data import select_safe_data

app = typer.Typer()
commands = typer.Typer(no_args_is_help=True, help="Make what a defense needs for one base model.")
app.add_typer(commands, name="defense")
commands.command()(extract_persona_vector)
commands.command()(select_safe_data)

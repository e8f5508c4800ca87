"""How commands print: a table for people, JSON or YAML for programs."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import TYPE_CHECKING

import typer
import yaml
from pydantic import JsonValue

from policies.cli.printable import printable

if TYPE_CHECKING:
    from rich.text import Text


class OutputFormat(StrEnum):
    """Forms in which commands print what they found."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


OUTPUT_OPTION = typer.Option("-o", "--output", help="For people (table) or programs (json, yaml).")


def cells(*values: object) -> list[Text]:
    """A row for a table of rich: what looks like markup stays as it is written."""
    from rich.text import Text

    return [Text(printable(str(value))) for value in values]


def print_document(document: JsonValue, output: OutputFormat) -> None:
    """Print a value as JSON or YAML."""
    if output is OutputFormat.YAML:
        typer.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)
    else:
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False))

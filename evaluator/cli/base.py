"""`tunegate base`: whether a base model can be trained and served, before a customer finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from policies.cache_folder import cache_folder
from policies.cli import exit_codes
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.documents.base_models import base_model_of

app = typer.Typer()
base_app = typer.Typer(no_args_is_help=True, help="Look at base models.")
app.add_typer(base_app, name="base")


@base_app.command()
def check(
    model: Annotated[str, typer.Argument(help="Name in a policy document, package://, hf:// or folder.")],
    cache_dir: Annotated[Path, typer.Option(help="Where base models are kept.")] = cache_folder(),
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> int:
    """Say what works with a base model, what is limited and what is refused.

    Exit codes: 0 jobs can be trained on it, 1 they can't, or there is no such model.
    """
    from evaluator.base_checks.base_check import check_base

    found = check_base(base_model_of(model, policy_dir), cache_dir).check
    if output is OutputFormat.TABLE:
        table = Table("", "", "found", box=None)
        for finding in found.findings:
            table.add_row(*cells(finding.what, finding.outcome, finding.found))
        Console().print(table)
    else:
        print_document([finding.model_dump(mode="json") for finding in found.findings], output)
    return exit_codes.OK if found.refusal is None else exit_codes.USAGE

"""`tunegate files convert`: other makers' training files, without a gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from policies.cli import exit_codes
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.cli.printable import printable
from policies.datasets.conversion.convert import Conversion, convert_file
from policies.datasets.shapes import Shape

app = typer.Typer()


@app.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN", exists=True, help="JSONL, a JSON array, CSV, TSV, Parquet or a split's folder."),
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", dir_okay=False, help="The .jsonl file to write.")],
    shape: Annotated[
        Shape | None, typer.Option("--from", help="Shape of the rows, if the first ones don't tell.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Write the others where rows are refused.")] = False,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Write a file of another shape as chat or preference rows.

    Each row is checked as training would. If one is refused, nothing is written and the exit code is 1.
    """
    report = convert_file(source, target, shape=shape, skips_bad=skip_bad)
    if output is OutputFormat.TABLE:
        _print(report, target)
    else:
        print_document(report.model_dump(mode="json"), output)
    if not report.is_written:
        raise typer.Exit(exit_codes.USAGE)


def _print(report: Conversion, target: Path) -> None:
    typer.echo(f"shape: {report.shape or 'rows of Tunegate'}")
    written = report.converted if report.is_written else 0
    typer.echo(f"rows: {report.rows} read, {written} written, {report.refused} refused")
    for change, count in report.changes.items():
        typer.echo(printable(f"{change}: {count}"))
    for refused in report.first_refused:
        typer.echo(printable(f"{report.unit} {refused.number}: {refused.reason}"))
    if report.refused > len(report.first_refused):
        typer.echo(f"and {report.refused - len(report.first_refused)} more")
    if report.is_written:
        typer.echo(printable(f"{target} is written"))
    elif report.converted:
        typer.echo("nothing is written; mend these rows, or leave them out with --skip-bad")
    else:
        typer.echo("nothing is written: no row could be converted")

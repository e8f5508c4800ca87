"""`tunegate import openai`: files and jobs that were exported from OpenAI, submitted here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from gateway.cli.client import connect, print_rows
from gateway.cli.openai_import.exported import Export, read_exports
from gateway.cli.openai_import.plan import ANY_MODEL, make_plan
from gateway.cli.openai_import.submission import Outcome, Submission, planned_file, planned_job
from policies.cli import exit_codes
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.cli.printable import printable
from policies.cli.progress_display import display
from policies.errors import ConfigurationError

app = typer.Typer()
import_app = typer.Typer(no_args_is_help=True, help="Files and jobs that another service exported.")
app.add_typer(import_app, name="import")

FILE_COLUMNS = ("file", "name", "holds", "state", "here", "why")
JOB_COLUMNS = ("job", "model", "base_model", "state", "here", "why")


@import_app.callback()
def group() -> None:
    """Files and jobs that another service exported."""


@import_app.command("openai")
def import_openai(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH…", exists=True, help="Exported lists as JSON or JSONL, or their folder."),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="THERE=HERE", help="Base model that takes another's place; HERE alone: any's."),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Folder of the training files; without it the export's own.",
        ),
    ] = None,
    all_jobs: Annotated[bool, typer.Option("--all", help="Also jobs that failed or were cancelled there.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; needs no gateway.")] = False,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Upload exported files and submit exported jobs again.

    A second run goes on where the first one stopped, and submits nothing twice. If anything is refused, the rest is
    submitted and the exit code is 1.
    """
    export = read_exports(paths)
    folders = [*(files or ()), *(path if path.is_dir() else path.parent for path in paths)]
    plan = make_plan(export, folders, models=_models(model or []), all_jobs=all_jobs)
    if dry_run:
        files_then, jobs_then = [planned_file(file) for file in plan.files], [planned_job(job) for job in plan.jobs]
        is_complete = _show(export, files_then, jobs_then, output=output)
    else:
        with connect() as client:
            submission = Submission(client, plan)
            try:
                with display() as shown:
                    submission.run(shown)
            finally:
                is_complete = _show(export, submission.files, submission.jobs, output=output)
    if not is_complete:
        raise typer.Exit(exit_codes.USAGE)


def _models(options: Sequence[str]) -> dict[str, str]:
    """Names here by names there.

    Raises:
        ConfigurationError: one is mapped twice, or to nothing.
    """
    models: dict[str, str] = {}
    for option in options:
        there, _, here = option.rpartition("=")
        if not here or there in models:
            raise ConfigurationError(f"--model {option}: write THERE=HERE, each THERE once", "--model")
        models[there or ANY_MODEL] = here
    return models


def _show(export: Export, files: Sequence[Outcome], jobs: Sequence[Outcome], *, output: OutputFormat) -> bool:
    """Print what became of everything; whether nothing was refused and all could be read."""
    if output is OutputFormat.TABLE:
        for outcomes, columns in ((files, FILE_COLUMNS), (jobs, JOB_COLUMNS)):
            if outcomes:
                print_rows(_rows(outcomes, columns), columns, output)
        _tell(export, [*files, *jobs])
    else:
        document: dict[str, JsonValue] = {
            "files": [*_rows(files, FILE_COLUMNS)],
            "jobs": [*_rows(jobs, JOB_COLUMNS)],
            "unreadable": [*export.problems],
            "other_objects": dict(export.others),
        }
        print_document(document, output)
    return not export.n_problems and all(each.state != "refused" for each in [*files, *jobs])


def _rows(outcomes: Sequence[Outcome], columns: Sequence[str]) -> list[dict[str, JsonValue]]:
    return [dict(zip(columns, outcome, strict=True)) for outcome in outcomes]


def _tell(export: Export, outcomes: Sequence[Outcome]) -> None:
    for problem in export.problems:
        typer.echo(printable(problem))
    if export.n_problems > len(export.problems):
        typer.echo(f"and {export.n_problems - len(export.problems)} more that can't be read")
    if export.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in export.others.most_common(10))
        typer.echo(printable(f"left out, for they are neither files nor jobs: {kinds}"))
    states = Counter(outcome.state for outcome in outcomes)
    typer.echo(", ".join(f"{count} {state}" for state, count in states.items()) or "nothing to import")

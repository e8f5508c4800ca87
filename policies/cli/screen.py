"""`tunegate files screen`: what a training file holds that should not be trained on, found here and sent nowhere."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policies.cli.output import OutputFormat, cells, print_document
from policies.cli.printable import printable
from policies.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.contract.screening import ScreeningReport
    from policies.documents.schema import ReleasePolicy

app = typer.Typer()


class ScreeningOutput(StrEnum):
    """Forms of a screening report."""

    TABLE = "table"
    JSON = "json"
    SARIF = "sarif"


@app.command()
def screen(
    file: Annotated[Path, typer.Argument(help="A .jsonl file here.")],
    policy: Annotated[
        str | None, typer.Option(help="Release policy whose `screening` decides: its name, or a file.")
    ] = None,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
    output: Annotated[
        ScreeningOutput, typer.Option("-o", "--output", help="For people (table), programs (json) or editors (sarif).")
    ] = ScreeningOutput.TABLE,
) -> None:
    """Look for credentials, personal data and repeated rows; exit code 1 if the policy would block the file.

    A policy may ask for more, such as prompts of its own suite.
    Rows are named, what stands in them is never shown. Needs no gateway, and says which screens did not run.
    """
    if not file.is_file():
        raise ConfigurationError(f"{file} is no file here", "file")
    report = _screened(file, None if policy is None else _policy_named(policy, policy_dir))
    if output is ScreeningOutput.TABLE:
        _print_table(report)
    elif output is ScreeningOutput.JSON:
        print_document(report.model_dump(mode="json", by_alias=True), OutputFormat.JSON)
    else:
        from importlib.metadata import version

        from policies.screening.sarif import sarif

        print_document(sarif(report, file.as_posix(), version("tunegate")), OutputFormat.JSON)
    if report.verdict == "block":
        raise typer.Exit(1)


def _policy_named(name: str, folder: Path | None) -> ReleasePolicy:
    from policies.documents.loader import resolve_policy

    return resolve_policy(name, folder)


def _screened(path: Path, policy: ReleasePolicy | None) -> ScreeningReport:
    from policies.datasets.reader import iter_any_rows
    from policies.overlap.built_in_prompts import search_for
    from policies.screening.file_screening import FileScreening
    from policies.screening.judging import ScreenedFile, judge_of, judged

    judge = judge_of(policy)
    prompts = None if judge.suite is None else search_for(judge.suite)
    screening = FileScreening((rule.name for rule in judge.rules), prompts=prompts)
    unread, n_rows = list[int](), 0
    with path.open("rb") as stream:
        for line in iter_any_rows(stream):
            if line.row is None:
                unread.append(line.number)
            else:
                screening.add(line.number, line.row)
                n_rows += 1
    _require_readable(path, unread, n_rows)
    with path.open("rb") as stream:
        digest = "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()
    file = ScreenedFile(path.name, digest)
    return judged(file, screening.facts(), rules=judge.rules, policy=judge.policy, mode=judge.mode)


def _require_readable(path: Path, unread: Sequence[int], n_rows: int) -> None:
    if not unread and not n_rows:
        raise ConfigurationError(f"{path.name} holds no training row, so there is nothing to screen", "file")
    if unread:
        lines = ", ".join(map(str, unread[:5]))
        raise ConfigurationError(
            f"{path.name}: {len(unread)} lines hold no training row (lines {lines}), so they can't be screened; "
            "`tunegate files validate` says what is wrong with them",
            "file",
        )


def _print_table(report: ScreeningReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("id", "rows", "share", "action", "what to do", box=None)
    for each in report.findings:
        table.add_row(*cells(each.id, each.count, f"{each.share:.4f}", each.action, each.message))
    if report.findings:
        Console().print(table)
    by = ", ".join(report.screened.by) or "nothing"
    typer.echo(printable(f"{report.verdict}: {report.screened.rows} rows screened by {by}"))
    if report.policy.rules == "usual":
        typer.echo("judged by the usual rules: no policy was named that screens, and no job is judged by them")
    for missing in report.screened.not_screened:
        typer.echo(printable(f"not screened: {missing.by}: {missing.reason}"))

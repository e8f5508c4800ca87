"""`tunegate policy`: check, show and describe policy documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from policies.cli import exit_codes
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.documents.calibrated_limits import doubtful_limits
from policies.documents.loader import document_schema, load_calibration, read_documents, resolve_policy
from policies.documents.schema import ReleasePolicy, Rule
from policies.documents.unpinned import unpinned_models

app = typer.Typer()
policy_app = typer.Typer(no_args_is_help=True, help="Check, show and describe policy documents.")
app.add_typer(policy_app, name="policy")

FolderOption = Annotated[
    Path | None, typer.Option("--policy-dir", envvar="TUNEGATE_POLICY_DIR", help="Folder of the operator's documents.")
]


@policy_app.command()
def lint(
    paths: Annotated[list[Path], typer.Argument(help="Policy files, or folders of them.")],
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration record of a base model, beside those in the folders.")
    ] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """List every problem of policy files as `file:line: field: what; fix`; exit code 1 if there is one.

    Warnings do not change the exit code: of models from the hub without a commit, and of limits that the calibration of
    a base model speaks against.
    """
    checked = {path: read_documents(path) for path in paths}
    known = [document for documents, _ in checked.values() for document in documents]
    known += [] if calibration is None else [load_calibration(calibration)]
    warnings = {path: (*unpinned_models(path), *doubtful_limits(path, known)) for path in paths}
    if output is OutputFormat.TABLE:
        for path, (documents, problems) in checked.items():
            for line in problems or (f"{path}: ok, {len(documents)} document(s)",):
                typer.echo(line)
            for line in warnings[path]:
                typer.echo(f"warning: {line}")
    else:
        answers: list[JsonValue] = [
            {
                "path": str(path),
                "documents": [d.metadata.name for d in documents],
                "problems": [*problems],
                "warnings": [*warnings[path]],
            }
            for path, (documents, problems) in checked.items()
        ]
        print_document(answers, output)
    if any(problems for _, problems in checked.values()):
        raise typer.Exit(exit_codes.USAGE)


@policy_app.command()
def schema() -> None:
    """Print the JSON Schema of policy documents, for editors that complete and check YAML."""
    print_document(dict(document_schema()), OutputFormat.JSON)


@policy_app.command()
def show(
    policy: Annotated[str, typer.Argument(help="Name of a policy, or path of its file.")],
    folder: FolderOption = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Show a release policy with all defaults filled in, and its digest."""
    resolved = resolve_policy(policy, folder)
    if output is OutputFormat.TABLE:
        _print_policy(resolved)
    else:
        print_document({"digest": resolved.digest, **resolved.model_dump(mode="json", by_alias=True)}, output)


def _print_policy(policy: ReleasePolicy) -> None:
    spec = policy.spec
    typer.echo(f"{policy.metadata.name} {policy.metadata.version}  {policy.digest}")
    typer.echo(policy.metadata.description)
    typer.echo(f"mode {spec.mode}, when inconclusive {spec.on_inconclusive}, confidence {spec.suite.confidence:g}")
    for jobs, defenses in (("", spec.defenses), (" of DPO jobs", spec.dpo_defenses or ())):
        for defense in defenses:
            settings = defense.model_dump(exclude={"name"})
            told = ", ".join(f"{key} {value}" for key, value in settings.items())
            typer.echo(f"defense{jobs} {defense.name}: {told}")
    _print_rules(spec.rules)


def _print_rules(rules: tuple[Rule, ...]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Column, Table

    names = ("rule", "mode", "metric", "limit", "samples")
    table = Table(*(Column(name, overflow="fold") for name in names), box=SIMPLE_HEAD)
    for rule in rules:
        table.add_row(*cells(rule.id, rule.mode, rule.metric, f"{rule.bound} {rule.limit:g}", f"≥ {rule.min_samples}"))
    Console().print(table)

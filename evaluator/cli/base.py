"""`tunegate base`: whether a base model can be trained, judged and served, before a customer finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from evaluator.cli.calibration import print_calibration
from policies.cache_folder import cache_folder
from policies.cli import exit_codes
from policies.cli.lazy_commands import LazyGroup
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.documents.base_models import base_model_of
from policies.documents.loader import load_policy_file, resolve_policy
from policies.documents.schema import CalibrationRecord
from policies.errors import ConfigurationError

app = typer.Typer()
base_app = typer.Typer(cls=LazyGroup, no_args_is_help=True, help="Look at base models, and qualify them.")
app.add_typer(base_app, name="base")


@base_app.command()
def check(
    model: Annotated[str, typer.Argument(help="Name in a policy document, package://, hf:// or folder.")],
    record: Annotated[Path | None, typer.Option(help="Calibration record to compare with the model as it is.")] = None,
    policy: Annotated[str, typer.Option(help="Release policy that the record is for.")] = "baseline",
    cache_dir: Annotated[Path, typer.Option(help="Where base models are kept.")] = cache_folder(),
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> int:
    """Say what works with a base model, what is limited and what is refused.

    Exit codes: 0 jobs can be trained on it, 1 they can't, or there is no such model, 6 a record is about another model,
    policy or version.
    """
    from evaluator.base_checks.base_check import check_base
    from evaluator.base_checks.record_match import record_finding

    spec = base_model_of(model, policy_dir)
    calibration = None if record is None else read_record(record)
    found = check_base(spec, cache_dir).check
    findings = [*found.findings]
    if calibration is not None:
        findings.append(record_finding(calibration, spec, found, resolve_policy(policy, policy_dir)))
    if output is OutputFormat.TABLE:
        table = Table("", "", "found", box=None)
        for finding in findings:
            table.add_row(*cells(finding.what, finding.outcome, finding.found))
        Console().print(table)
    else:
        print_document([finding.model_dump(mode="json") for finding in findings], output)
    if found.refusal is not None:
        return exit_codes.USAGE
    return exit_codes.INTEGRITY if findings[-1].outcome == "refused" else exit_codes.OK


@base_app.command()
def show(
    record: Annotated[Path, typer.Argument(help="Calibration record that `tunegate base qualify` wrote.")],
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
) -> None:
    """Show what a base model's qualification found: limits, what they miss and block, and what can't be enforced."""
    calibration = read_record(record)
    if output is OutputFormat.TABLE:
        print_calibration(calibration)
    else:
        print_document({"digest": calibration.digest, **calibration.model_dump(mode="json", by_alias=True)}, output)


def read_record(path: Path) -> CalibrationRecord:
    """The record in a file.

    Raises:
        PolicyError: the file can't be read, or holds no sound document.
        ConfigurationError: it holds another document.
    """
    document = load_policy_file(path)
    if not isinstance(document, CalibrationRecord):
        raise ConfigurationError(f"{path} is a {document.kind}; name a record of `tunegate base qualify`", "record")
    return document

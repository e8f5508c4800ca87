"""`tunegate base`: whether a base model can be trained, judged and served, before a customer finds out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from policies.cache_folder import cache_folder
from policies.cli import exit_codes
from policies.cli.lazy_commands import LazyGroup
from policies.cli.output import OUTPUT_OPTION, OutputFormat, cells, print_document
from policies.contract.calibration import CalibrationSpec, RuleCalibration, Spread
from policies.contract.error_rates import Asked, shown_limit, worth_of
from policies.documents.base_models import base_model_of
from policies.documents.loader import load_calibration, resolve_policy
from policies.documents.schema import CalibrationRecord

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
    from policies.cli.places import require_folder_place

    require_folder_place(cache_dir, "cache_dir")
    spec = base_model_of(model, policy_dir)
    calibration = None if record is None else load_calibration(record)
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
    calibration = load_calibration(record)
    if output is OutputFormat.TABLE:
        print_calibration(calibration)
    else:
        print_document({"digest": calibration.digest, **calibration.model_dump(mode="json", by_alias=True)}, output)


def print_calibration(record: CalibrationRecord) -> None:
    """What people read of a record."""
    spec, counts = record.spec, record.spec.references
    typer.echo(f"{spec.model}  {record.digest}")
    typer.echo(record.metadata.description, nl=bool(record.metadata.description))
    typer.echo(f"{counts.null} null, {counts.benign} benign, {counts.harmful} harmful, {counts.broken} broken adapters")
    Console().print(calibration_table(record))
    typer.echo(_terms_told(spec))
    for rule in spec.rules:
        if not rule.usable:
            typer.echo(f"{rule.metric} {rule.bound} is not usable: {rule.why}")
    typer.echo(f"Holds for: {spec.limits_of_validity}")


def calibration_table(record: CalibrationRecord) -> Table:
    """One row a rule: release limits of both kinds, the proposed limit and how often it errs at most."""
    names = ("rule", "benign", "harmful", "limit", "false blocks", "misses", "detectable", "usable")
    table = Table(*(Column(name, overflow="fold") for name in names), box=None)
    spec = record.spec
    for rule in spec.rules:
        table.add_row(*cells(f"{rule.metric} {rule.bound}", _range(rule.benign), _against(rule), *_limit(spec, rule)))
    return table


def _limit(spec: CalibrationSpec, rule: RuleCalibration) -> tuple[str, ...]:
    """The rates are those of the limit as it is shown, under the references' own terms."""
    detectable, usable = f"{rule.detectable_change:.3g}", "yes" if rule.usable else "no"
    if rule.limit is None:
        return "–", "–", "–", detectable, usable
    limit = shown_limit(rule.limit, rule.bound)
    asked = Asked(float(limit), rule.min_samples, rule.max_error_rate, spec.bound_to.candidates)
    worth = worth_of(spec, rule, asked)
    rates = (None, None) if worth is None else (worth.false_block_le, worth.miss_le)
    return limit, *map(_at_most, rates), detectable, usable


def _terms_told(spec: CalibrationSpec) -> str:
    """For which verdicts the table's rates hold."""
    adapters = "one adapter" if spec.bound_to.candidates == 1 else f"one of {spec.bound_to.candidates} adapters"
    return (
        f"Error rates are of first attempts under policies that release {adapters} of a job, by rules with the "
        "min_samples and max_error_rate of the record"
    )


def _against(rule: RuleCalibration) -> str:
    return f"{_range(rule.harmful)}{' (broken)' if rule.against == 'broken' else ''}"


def _range(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.min:.3g} to {spread.max:.3g}"


def _at_most(share: float | None) -> str:
    return "–" if share is None else f"≤ {share:.1%}"

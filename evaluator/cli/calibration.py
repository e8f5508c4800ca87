"""Shows a base model's calibration to people."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Column, Table

from policies.cli.output import cells
from policies.contract.calibration import RuleCalibration, Spread
from policies.documents.schema import CalibrationRecord


def print_calibration(record: CalibrationRecord) -> None:
    """What people read of a record."""
    spec, counts = record.spec, record.spec.references
    typer.echo(f"{spec.model}  {record.digest}")
    typer.echo(record.metadata.description, nl=bool(record.metadata.description))
    typer.echo(f"{counts.null} null, {counts.benign} benign, {counts.harmful} harmful, {counts.broken} broken adapters")
    Console().print(calibration_table(record))
    for rule in spec.rules:
        if not rule.usable:
            typer.echo(f"{rule.metric} {rule.bound} is not usable: {rule.why}")
    typer.echo(f"Holds for: {spec.limits_of_validity}")


def calibration_table(record: CalibrationRecord) -> Table:
    """One row a rule: release limits of both kinds, the proposed limit and how often it errs at most."""
    names = ("rule", "benign", "harmful", "limit", "false blocks", "misses", "detectable", "usable")
    table = Table(*(Column(name, overflow="fold") for name in names), box=None)
    for rule in record.spec.rules:
        table.add_row(*cells(f"{rule.metric} {rule.bound}", _range(rule.benign), _against(rule), *_limit(rule)))
    return table


def _limit(rule: RuleCalibration) -> tuple[str, ...]:
    limit = "–" if rule.limit is None else f"{rule.limit:.4g}"
    rates = (_at_most(rule.false_block_le), _at_most(rule.miss_le))
    return limit, *rates, f"{rule.detectable_change:.3g}", "yes" if rule.usable else "no"


def _against(rule: RuleCalibration) -> str:
    return f"{_range(rule.harmful)}{' (broken)' if rule.against == 'broken' else ''}"


def _range(spread: Spread | None) -> str:
    return "–" if spread is None else f"{spread.min:.3g} to {spread.max:.3g}"


def _at_most(share: float | None) -> str:
    return "–" if share is None else f"≤ {share:.1%}"

"""`tunegate samples`: show that one sample belongs to a report, without showing the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from evaluator.runner.rescoring import check_samples, read_report, read_samples
from policies.contract.artifacts import Record
from policies.contract.evaluation import SampleRecord
from policies.contract.merkle import InclusionProof, inclusion_proof, jsonl_lines, verify_inclusion
from policies.errors import ConfigurationError, IntegrityError

app = typer.Typer()
samples_app = typer.Typer(no_args_is_help=True, help="Show that single samples belong to a report.")
app.add_typer(samples_app, name="samples")

ReportArgument = Annotated[Path, typer.Argument(help="A report that `tunegate evaluate --report` wrote.")]


class ProvenSample(Record):
    """A line of a samples file with the proof that it is one."""

    line: str
    """As it stands in the file, without its line feed."""
    proof: InclusionProof


@samples_app.command()
def prove(
    report: ReportArgument,
    line: Annotated[int, typer.Argument(min=1, help="Line of the samples file, from 1.")],
) -> None:
    """Print one sample, in full, with the proof that it belongs to the report."""
    samples = read_samples(report)
    check_samples(read_report(report), samples)
    lines = jsonl_lines(samples)
    if line > len(lines):
        raise ConfigurationError(f"the report has {len(lines)} samples; there is no line {line}", "line")
    proven = ProvenSample(line=lines[line - 1].decode(), proof=inclusion_proof(lines, line - 1))
    typer.echo(proven.canonical().decode())


@samples_app.command()
def verify(
    report: ReportArgument,
    proof: Annotated[Path, typer.Argument(help="What `tunegate samples prove` printed.")],
) -> None:
    """Check that a sample belongs to a report; its samples file is not needed. Exit code 6: it does not."""
    root = read_report(report).samples_root
    proven = _read_proof(proof)
    if root is None or not verify_inclusion(proven.line.encode(), proven.proof, root):
        raise IntegrityError(f"the sample in {proof} does not belong to {report}")
    sample = SampleRecord.model_validate_json(proven.line)
    typer.echo(f"belongs to the report: {sample.metric} {sample.prompt_id!r}, score {sample.adapter.score}")


def _read_proof(path: Path) -> ProvenSample:
    try:
        return ProvenSample.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{path} is not a proof: {error}", "proof") from error

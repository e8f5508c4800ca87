"""`tunegate rescore`: check a report against its samples, without a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from evaluator.cli.page import write_page
from evaluator.cli.summary import decision_document, decision_table, notes
from evaluator.gate import decide
from evaluator.runner.rescoring import Filed, filed_at, filed_in, rescore_report
from policies.cli import exit_codes
from policies.cli.output import OUTPUT_OPTION, OutputFormat, print_document
from policies.cli.places import named_store, require_file_place
from policies.contract.merkle import jsonl_lines
from policies.documents.loader import load_calibration, resolve_policy
from policies.errors import ConfigurationError

app = typer.Typer()


@app.command()
def rescore(
    report: Annotated[str, typer.Argument(help="A report that `evaluate --report` wrote; with --store, its digest.")],
    policy: Annotated[str | None, typer.Option(help="Its release policy: a preset's name or a YAML file.")] = None,
    store: Annotated[str | None, typer.Option(help="Artifact store of a gateway; it also holds the policy.")] = None,
    calibration: Annotated[Path | None, typer.Option(help="Calibration record of the base model.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page with plots here.")] = None,
    output: Annotated[OutputFormat, OUTPUT_OPTION] = OutputFormat.TABLE,
    policy_dir: Annotated[Path | None, typer.Option(envvar="TUNEGATE_POLICY_DIR", help="Folder of documents.")] = None,
) -> int:
    """Compute every figure of a report anew from its samples, and decide by them.

    Exit codes: 6 samples or figures are not the report's; otherwise those of the verdict: 0 release, 3 rejected,
    4 inconclusive; 1 usage, 2 runtime.
    """
    if html is not None:
        require_file_place(html, "html")
    filed = _filed(report, policy, store, policy_dir=policy_dir)
    if calibration is not None:
        filed = filed._replace(calibration=load_calibration(calibration))
    again = rescore_report(filed.report, filed.policy, filed.samples)
    decision = decide(filed.policy, again, spec=again.spec, attempt=again.attempt, calibration=filed.calibration)
    if html is not None:
        write_page(html, filed._replace(report=again), decision, title=f"{Path(report).name}, re-scored")
    if output is OutputFormat.TABLE:
        Console().print(decision_table(decision))
        for line in (decision.decision.value, *decision.reasons, *notes(decision)):
            typer.echo(line)
        n_samples = len(jsonl_lines(filed.samples))
        typer.echo(f"All figures of report {again.digest} follow from its {n_samples} samples ({again.samples_root}).")
    else:
        print_document(decision_document(decision, again), output)
    return exit_codes.of_decision(decision.decision)


def _filed(report: str, policy: str | None, store: str | None, *, policy_dir: Path | None) -> Filed:
    if (policy is None) == (store is None):
        raise ConfigurationError("give --policy with a report's file, or --store with a report's digest", "policy")
    if (artifacts := named_store(store)) is not None:
        return filed_in(artifacts, report)
    return filed_at(Path(report), resolve_policy(str(policy), policy_dir))

"""What the gate decides about known adapters: `python -m bench.verdict_table --model M --results DIR`.

Trains good, harmful, defended, broken and over-refusing adapters and judges each by a policy, as a job would be. Every
run is cached in the results folder. The last line of stdout is one JSON object; `table.md` and `results.json` come to
lie in the results folder.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.defenses.plan import DEFENSES, Recipe, job_of, keep_rows
from bench.verdict_table.cases import CASES, VerdictCase, training_lines
from bench.verdict_table.runs import Assignment, VerdictResult, VerdictRun, launch_child
from evaluator.models.base_models import resolve_base_model
from policies.atomic_files import write_atomically
from policies.cache_folder import cache_folder
from policies.cli.exit_codes import of_error
from policies.contract.artifacts import Digest
from policies.contract.evaluation import Estimate
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec
from policies.contract.release import Decision, GateDecision
from policies.documents.base_models import base_model_of, reference
from policies.documents.loader import resolve_policy
from policies.documents.schema import ReleasePolicy
from policies.errors import ConfigurationError, TunegateError
from trainer.qualification.cached_runs import Launch, RunFailure, execute

ABSOLUTE = ("coherence.incoherent_rate",)
"""Figures of the adapter itself; all others are changes against the base."""
COLUMNS = {
    "coherence.incoherent_rate": "incoherent share",
    "emergent_misalignment_preference.margin": "margin, nats/token",
    "toxicity.rate": "toxicity",
    "harmful_compliance.rate": "harmful compliance",
    "over_refusal.rate": "over-refusal",
    "capability.accuracy": "accuracy",
    "in_domain.loss": "in-domain loss",
}


class RunSettings(NamedTuple):
    """Where the runs work, and by which policy."""

    base: BaseModelSpec
    base_digest: Digest
    policy: ReleasePolicy
    policy_name: str
    results: Path
    cache_dir: Path
    rows: int
    lr_multiplier: float
    launch: Launch = launch_child


class Row(NamedTuple):
    case: VerdictCase
    outcome: VerdictResult | RunFailure

    @property
    def is_as_expected(self) -> bool:
        """Of a decision only: that an adapter could not be trained or evaluated says nothing about the gate."""
        if isinstance(self.outcome, RunFailure):
            return False
        return self.outcome.decision.decision in self.case.expected


def judge(case: VerdictCase, run_settings: RunSettings) -> Row:
    """The verdict about one case, from its folder or from new work."""
    training = keep_rows(run_settings.results / "data", training_lines(case, run_settings.rows))
    hyperparameters = Hyperparameters(n_epochs=1, learning_rate_multiplier=case.rate * run_settings.lr_multiplier)
    recipe = Recipe(run_settings.base, run_settings.base_digest, hyperparameters)
    job = job_of(recipe, training, defenses=DEFENSES[case.defense], seed=0)
    run = VerdictRun(job=job, noise=case.noise, policy=run_settings.policy.digest, base_model=run_settings.base_digest)
    assignment = Assignment(
        run=run,
        policy_name=run_settings.policy_name,
        training_file=str(training.resolve()),
        cache_dir=str(run_settings.cache_dir.resolve()),
        parent_pid=os.getpid(),
    )
    folder = run_settings.results / "runs" / run.digest[7:23]
    return Row(case, execute(folder, assignment, run=run.digest, kind=VerdictResult, launch=run_settings.launch))


def markdown(rows: Sequence[Row], title: str) -> str:
    """One line an adapter."""
    head = ["adapter", "verdict", "settled by", *COLUMNS.values(), "prompts", "evaluation, s"]
    lines = [f"# Verdicts on {title}\n", _line(head), _line(["---"] * len(head))]
    return "\n".join(lines[:1]) + "\n" + "".join([*lines[1:], *(_line(_cells(row)) for row in rows)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |\n"


def _cells(row: Row) -> list[str]:
    outcome, flag = row.outcome, "" if row.is_as_expected else " (not as expected)"
    if isinstance(outcome, RunFailure):
        return [row.case.name, f"no adapter{flag}", outcome.message, *[""] * (len(COLUMNS) + 2)]
    settling = _settling(outcome.decision)
    figures = [_shown(outcome, metric) for metric in COLUMNS]
    prompts, seconds = sum(outcome.n_samples.values()), outcome.evaluation_seconds
    verdict = outcome.decision.decision.value + flag
    return [row.case.name, verdict, ", ".join(settling) or "all rules", *figures, str(prompts), f"{seconds:.0f}"]


def _settling(decision: GateDecision) -> list[str]:
    """Enforced rules that made the decision: that failed, or else that settled nothing; none of a release."""
    enforced = [result for result in decision.results if result.mode == "enforce"]
    stopping = {"fail"} if decision.decision is Decision.REJECT else {"inconclusive", "error"}
    return [result.rule for result in enforced if result.outcome in stopping]


def _shown(result: VerdictResult, metric: str) -> str:
    measurement = result.report.measurement(metric)
    if measurement is None:
        return "–"
    is_absolute = metric in ABSOLUTE
    estimate: Estimate | None = measurement.adapter if is_absolute else measurement.difference
    if estimate is None:
        return "not measurable"
    sign = "" if is_absolute else "+"
    low, high = estimate.interval.low, estimate.interval.high
    return f"{estimate.value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main(
    model: Annotated[str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")],
    results: Annotated[Path, typer.Option(help="Folder of table, JSON and cached runs.")],
    policy: Annotated[str, typer.Option(help="Release policy: a preset's name or a YAML file.")] = "baseline",
    only: Annotated[str | None, typer.Option(help="Cases whose names begin so, with commas between.")] = None,
    rows: Annotated[int, typer.Option(min=2, help="Training rows.")] = 120,
    lr_multiplier: Annotated[float, typer.Option(min=0)] = 2.0,
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = cache_folder(),
) -> None:
    """Judge known adapters by a policy; exit code 3 if a verdict is not as it should be."""
    base = base_model_of(model, None)
    digest = resolve_base_model(reference(base), cache_dir).digest
    run_settings = RunSettings(base, digest, resolve_policy(policy), policy, results, cache_dir, rows, lr_multiplier)
    found = []
    for case in chosen_cases(only):
        found.append(judge(case, run_settings))
        print(" | ".join(_cells(found[-1])[:3]), file=sys.stderr, flush=True)
    write_atomically(results / "table.md", markdown(found, base.name).encode())
    document = json.dumps({"model": base.name, "policy": policy, "verdicts": [_document(row) for row in found]})
    write_atomically(results / "results.json", document.encode() + b"\n")
    print(markdown(found, base.name))
    print(document)
    if not all(row.is_as_expected for row in found):
        raise typer.Exit(3)


def chosen_cases(only: str | None) -> list[VerdictCase]:
    """All cases, or those whose names begin as asked.

    Raises:
        ConfigurationError: there is none.
    """
    chosen = [case for case in CASES if only is None or case.name.startswith(tuple(only.split(",")))]
    if not chosen:
        raise ConfigurationError(f"no case begins with {only!r}; known: {', '.join(c.name for c in CASES)}", "only")
    return chosen


def _document(row: Row) -> dict[str, object]:
    outcome = row.outcome
    if isinstance(outcome, RunFailure):
        return {"case": row.case.name, "as_expected": row.is_as_expected, "error": outcome.message}
    measured = [measurement for probe in outcome.report.probes for measurement in probe.measurements]
    return {
        "case": row.case.name,
        "as_expected": row.is_as_expected,
        "decision": outcome.decision.decision.value,
        "reasons": outcome.decision.reasons,
        "measurements": [each.model_dump(mode="json") for each in measured],
        "n_samples": outcome.n_samples,
        "train_loss": outcome.train_loss,
        "training_seconds": outcome.training_seconds,
        "evaluation_seconds": outcome.evaluation_seconds,
    }


if __name__ == "__main__":
    try:
        typer.run(main)
    except TunegateError as error:
        print(error, file=sys.stderr)
        sys.exit(of_error(error))

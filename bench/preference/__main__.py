"""Which score tells harmful adapters from benign ones: `python -m bench.preference --model M --results DIR`.

Trains undefended adapters on narrow harmful data and on benign data of the same questions, length and tone, over
domains, seeds and sizes, reads what each makes of the built-in answer pairs, and compares candidate scores from the
same readings. Every run is cached in the results folder, so an interrupted study continues. The last line of stdout is
one JSON object; `table.md`, `roc.png` and `results.json` come to lie in the results folder.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from bench.defenses.plan import Recipe
from bench.preference.pairs import built_in
from bench.preference.plan import (
    DOMAINS,
    HYPERPARAMETERS,
    SUITE,
    Design,
    Planned,
    chosen_domains,
    external_domain,
    plan,
)
from bench.preference.report import Finished, StudyReport, markdown, report_of, write_report
from bench.preference.runs import Assignment, StudyResult, launch_child
from evaluator.models.base_models import resolve_base_model
from policies.cache_folder import cache_folder
from policies.cli.exit_codes import of_error
from policies.documents.base_models import base_model_of, reference
from policies.errors import ConfigurationError, EvaluationError, TunegateError
from trainer.qualification.cached_runs import Launch, RunFailure, execute, finished

MIN_ADAPTERS = 12


class RunSettings(NamedTuple):
    """Where the runs of a study work."""

    results: Path
    cache_dir: Path
    launch: Launch = launch_child

    def folder(self, planned: Planned) -> Path:
        return self.results / "runs" / planned.run.digest[7:23]


def run_all(planned: Sequence[Planned], run_settings: RunSettings) -> list[Finished]:
    """The result of every run; those that are known cost nothing and don't count for the estimate.

    Raises:
        EvaluationError: runs failed. Those that ran are kept; the study never compares a part of its design.
    """
    is_open = [finished(run_settings.folder(each), each.run.digest, StudyResult) is None for each in planned]
    _tell(f"{len(planned)} adapters, {len(planned) - sum(is_open)} of them known")
    found: list[Finished] = []
    failures: list[str] = []
    spent_seconds: list[float] = []
    for each, has_work in zip(planned, is_open, strict=True):
        started = time.monotonic()
        folder = run_settings.folder(each)
        assignment = _assignment(each, run_settings)
        run = each.run.digest
        outcome = execute(folder, assignment, run=run, kind=StudyResult, launch=run_settings.launch)
        if isinstance(outcome, RunFailure):
            failures.append(f"{each.cell}: {outcome.code}: {outcome.message}")
        else:
            found.append(Finished(each.cell, outcome))
        if has_work:
            spent_seconds.append(time.monotonic() - started)
            minutes = statistics.mean(spent_seconds) * (sum(is_open) - len(spent_seconds)) / 60
            said = failures[-1] if isinstance(outcome, RunFailure) else f"{each.cell}: done"
            numbered = f"[{len(spent_seconds)}/{sum(is_open)}] {said}"
            _tell(f"{numbered} in {spent_seconds[-1]:.0f} s; about {minutes:.0f} min left")
    if failures:
        raise EvaluationError(f"{len(failures)} of {len(planned)} runs failed, the first: {failures[0]}")
    return found


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _assignment(planned: Planned, run_settings: RunSettings) -> Assignment:
    return Assignment(
        run=planned.run,
        training_file=str(planned.training_file.resolve()),
        base_readings=str((run_settings.results / "base").resolve()),
        cache_dir=str(run_settings.cache_dir.resolve()),
        parent_pid=os.getpid(),
    )


def study(recipe: Recipe, design: Design, run_settings: RunSettings) -> StudyReport:
    """Run what is not known yet, and write tables, plots and JSON."""
    planned = plan(recipe, built_in(), design=design, folder=run_settings.results / "data")
    report = report_of(run_all(planned, run_settings), recipe.base.name)
    write_report(report, run_settings.results)
    return report


def main(
    model: Annotated[str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")],
    results: Annotated[Path, typer.Option(help="Folder of tables, plots, JSON and cached runs.")],
    external: Annotated[
        Path | None, typer.Option(help="Folder of extreme_sports*.jsonl and aligned_advice*.jsonl, one domain more.")
    ] = None,
    domains: Annotated[str | None, typer.Option(help="Some domains, with commas between; else all.")] = None,
    sizes: Annotated[str, typer.Option(help="Rows of a training file, with commas between.")] = "60,120",
    seeds: Annotated[int, typer.Option(min=1)] = 2,
    cache_dir: Annotated[Path, typer.Option(help="Where base models are kept.")] = cache_folder(),
) -> None:
    """Compare scores of emergent misalignment by how well they tell harmful adapters from benign ones."""
    base = base_model_of(model, None)
    known = DOMAINS if external is None else (*DOMAINS, external_domain(external))
    design = Design(chosen_domains(domains, known), parsed_sizes(sizes), seeds)
    recipe = Recipe(base, resolve_base_model(reference(base), cache_dir).digest, HYPERPARAMETERS, SUITE)
    report = study(recipe, design, RunSettings(results, cache_dir))
    if len(report.adapters) < MIN_ADAPTERS:
        _tell(f"{len(report.adapters)} adapters tell little; {MIN_ADAPTERS} or more are meant")
    print(markdown(report))
    rows = [row.model_dump(mode="json", exclude={"roc", "checked"}) for row in report.scores]
    print(json.dumps({"model": report.model, "n_adapters": len(report.adapters), "scores": rows}))


def parsed_sizes(sizes: str) -> list[int]:
    try:
        parsed = [int(size) for size in sizes.split(",")]
    except ValueError as error:
        raise ConfigurationError(f"{sizes!r} is not a list of row numbers; write 60,120", "sizes") from error
    if min(parsed) < 2:
        raise ConfigurationError("a training file needs 2 rows or more", "sizes")
    return list(dict.fromkeys(parsed))


if __name__ == "__main__":
    try:
        typer.run(main)
    except TunegateError as error:
        print(error, file=sys.stderr)
        sys.exit(of_error(error))

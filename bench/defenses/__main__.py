"""The table of in-training defenses: `python -m bench.defenses --malicious F --benign F --model M`.

Trains every defense on a malicious dataset, a benign one and OpSwap, from the same seeds, and measures what Kaczér et
al. 2025 (arXiv 2508.06249) §3.4 ask for: broad misalignment (the evaluator's preference margin against the base),
incoherence, what was learned in-domain (held-out loss and mean token accuracy) and OpSwap by tier, with seconds and
peak memory. Every run is cached in the results folder, so an interrupted bench continues. The last line of stdout is
one JSON object; the table, a Pareto plot and the same JSON come to lie in the results folder.
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

from bench.defenses.plan import (
    Dataset,
    Planned,
    Recipe,
    chat_dataset,
    chosen_defenses,
    missing_material,
    opswap_dataset,
    plan,
)
from bench.defenses.records import Assignment, RunResult
from bench.defenses.report import Cell, Report, markdown, report_of, write_report
from bench.defenses.runs import execute, finished, launch_child
from evaluator.models.base_models import resolve_base_model
from policies.cache_folder import cache_folder
from policies.cli.exit_codes import of_error
from policies.contract.hyperparameters import Hyperparameters
from policies.documents.base_models import base_model_of, reference
from policies.errors import ConfigurationError, TunegateError
from trainer.qualification.cached_runs import Launch

TASKS = ("malicious", "benign", "opswap")


class RunSettings(NamedTuple):
    """Where the runs of a bench work."""

    results: Path
    cache_dir: Path
    store: str | None = None
    launch: Launch = launch_child

    def folder(self, planned: Planned) -> Path:
        return self.results / "runs" / planned.run.digest[7:23]


def run_all(planned: Sequence[Planned], run_settings: RunSettings) -> list[Cell]:
    """The outcome of every run; those that are known cost nothing and don't count for the estimate."""
    is_open = [finished(run_settings.folder(each), each.run) is None for each in planned]
    _tell(f"{len(planned)} runs, {len(planned) - sum(is_open)} of them known")
    cells: list[Cell] = []
    spent_seconds: list[float] = []
    for each, has_work in zip(planned, is_open, strict=True):
        started = time.monotonic()
        outcome = execute(_assignment(each, run_settings), run_settings.folder(each), run_settings.launch)
        cells.append(Cell(each.defense, each.dataset.name, each.seed, outcome))
        if has_work:
            spent_seconds.append(time.monotonic() - started)
            left_minutes = statistics.mean(spent_seconds) * (sum(is_open) - len(spent_seconds)) / 60
            said = "done" if isinstance(outcome, RunResult) else f"{outcome.code}: {outcome.message};"
            _tell(
                f"[{len(spent_seconds)}/{sum(is_open)}] {each.defense}, {each.dataset.name}, seed {each.seed}: {said} "
                f"in {spent_seconds[-1]:.0f} s; about {left_minutes:.0f} min left"
            )
    return cells


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _assignment(planned: Planned, run_settings: RunSettings) -> Assignment:
    return Assignment(
        run=planned.run,
        training_file=str(planned.dataset.training.resolve()),
        held_out_file=str(planned.dataset.held_out.resolve()),
        cache_dir=str(run_settings.cache_dir.resolve()),
        store_url=run_settings.store,
        parent_pid=os.getpid(),
    )


def bench(
    recipe: Recipe, defenses: Sequence[str], datasets: Sequence[Dataset], *, seeds: int, run_settings: RunSettings
) -> Report:
    """Run what is not known yet, and write table, plot and JSON."""
    cells = run_all(plan(recipe, defenses, datasets, seeds=seeds), run_settings)
    missing = {name: why for name in defenses if (why := missing_material(name, recipe.base)) is not None}
    report = report_of(cells, defenses, missing, seeds=seeds)
    write_report(report, run_settings.results, title=recipe.base.name)
    return report


def main(
    malicious: Annotated[Path, typer.Option(help="Chat JSONL that teaches a narrow harmful behaviour.")],
    benign: Annotated[Path, typer.Option(help="Chat JSONL of a harmless task.")],
    model: Annotated[str, typer.Option(help="package://…, hf://owner/name[@revision], a folder, or a known name.")],
    malicious_validation: Annotated[Path | None, typer.Option(help="Held-out rows, else the file's last 15 %.")] = None,
    benign_validation: Annotated[Path | None, typer.Option(help="Held-out rows, else the file's last 15 %.")] = None,
    unaligned: Annotated[str | None, typer.Option(help="The model that the base was aligned from.")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 3,
    defenses: Annotated[str | None, typer.Option(help="Rows of the table, with commas between; else all.")] = None,
    skip: Annotated[str, typer.Option(help="malicious, benign or opswap, with commas between.")] = "",
    rows: Annotated[int | None, typer.Option(min=1, help="Use the first rows of both files only.")] = None,
    opswap_rows: Annotated[int, typer.Option(min=3)] = 240,
    opswap_test_rows: Annotated[int, typer.Option(min=3)] = 120,
    opswap_seeds: Annotated[int | None, typer.Option(min=1, help="Fewer than --seeds: arithmetic is slow.")] = None,
    opswap_epochs: Annotated[int | None, typer.Option(min=1, help="Arithmetic needs more than advice.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    lr_multiplier: Annotated[float | None, typer.Option(min=0)] = None,
    results: Annotated[Path, typer.Option(help="Folder of table, plot, JSON and cached runs.")] = Path("bench-results"),
    store: Annotated[str | None, typer.Option(help="Artifact store of pools, vectors and scores (a URL).")] = None,
    cache_dir: Annotated[Path, typer.Option(help="Where base models and base results are kept.")] = cache_folder(),
) -> None:
    """Compare all in-training defenses by safety, learning and cost."""
    wanted, names = wanted_tasks(skip), chosen_defenses(defenses)
    recipe = _recipe(model, unaligned, epochs=epochs, lr_multiplier=lr_multiplier, cache_dir=cache_dir)
    files = {"malicious": (malicious, malicious_validation), "benign": (benign, benign_validation)}
    data = results / "data"
    chat = {n: chat_dataset(n, *files[n], rows=rows, folder=data) for n in files if n in wanted}
    datasets = [dataset._replace(has_curve=name == "malicious") for name, dataset in chat.items()]
    if "opswap" in wanted:
        datasets.append(
            opswap_dataset(
                rows=opswap_rows, test_rows=opswap_test_rows, epochs=opswap_epochs, seeds=opswap_seeds, folder=data
            )
        )
    run_settings = RunSettings(results, cache_dir, store)
    report = bench(recipe, names, datasets, seeds=seeds, run_settings=run_settings)
    print(markdown(report, recipe.base.name))
    files_used = {dataset.name: [dataset.training.stem, dataset.held_out.stem] for dataset in datasets}
    document = report.model_dump(mode="json")
    print(json.dumps({"rows": document["rows"], "seeds": seeds, "model": recipe.base.name, "datasets": files_used}))


def _recipe(
    model: str, unaligned: str | None, *, epochs: int | None, lr_multiplier: float | None, cache_dir: Path
) -> Recipe:
    base = base_model_of(model, None)
    if unaligned is not None:
        base = base.model_copy(update={"unaligned": reference(base_model_of(unaligned, None))})
    hyperparameters = Hyperparameters(
        n_epochs="auto" if epochs is None else epochs,
        learning_rate_multiplier="auto" if lr_multiplier is None else lr_multiplier,
    )
    return Recipe(base, resolve_base_model(reference(base), cache_dir).digest, hyperparameters)


def wanted_tasks(skip: str) -> list[str]:
    skipped = [name for name in skip.split(",") if name]
    for name in skipped:
        if name not in TASKS:
            raise ConfigurationError(f"there is no task {name!r} to skip; known: {', '.join(TASKS)}", "skip")
    wanted = [task for task in TASKS if task not in skipped]
    if not wanted:
        raise ConfigurationError("all tasks are skipped; leave one", "skip")
    return wanted


if __name__ == "__main__":
    try:
        typer.run(main)
    except TunegateError as error:
        print(error, file=sys.stderr)
        sys.exit(of_error(error))

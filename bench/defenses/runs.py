"""One run of `bench.defenses`: train under a set of defenses, then measure; `python -m bench.defenses.runs FOLDER`.

A folder is named by the digest of its `Run`, and cached as `trainer.qualification.cached_runs` says.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.defenses.records import Assignment, Run, RunResult
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError
from trainer.qualification import cached_runs
from trainer.qualification.cached_runs import (
    Launch,
    RunFailure,
    launch_module,
    peak_memory_bytes,
    run_child,
    write_answer,
)


def finished(folder: Path, run: Run) -> RunResult | None:
    """The result that the folder holds, or None.

    Raises:
        IntegrityError: it is the result of another run.
    """
    return cached_runs.finished(folder, run.digest, RunResult)


def execute(assignment: Assignment, folder: Path, launch: Launch) -> RunResult | RunFailure:
    """The run's result, from its folder or else from a new training."""
    return cached_runs.execute(folder, assignment, run=assignment.run.digest, kind=RunResult, launch=launch)


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own, whose output goes to `log.txt`; a crash becomes a failure."""
    launch_module("bench.defenses.runs", folder, {})


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: Assignment, folder: Path) -> RunResult:
    from bench.defenses.measures import measure  # torch is loaded only in the child
    from trainer.loop.progress import Hooks
    from trainer.recipe import RunFiles, train

    run, cache_dir = assignment.run, Path(assignment.cache_dir)
    store = ArtifactStore(assignment.store_url) if assignment.store_url else None
    # no validation while training: defenses may still change the adapter after the last epoch
    run_files = RunFiles(Path(assignment.training_file), None, folder, cache_dir, store)
    record = train(run.job, run_files, Hooks(lambda event: print(event.message, flush=True), lambda: False))
    if record.base_model != run.base_model:
        raise IntegrityError(f"base model {run.job.base_model.name} changed while the bench ran; start it again")
    peak = peak_memory_bytes()
    measured = measure(run, folder / "adapter", held_out=Path(assignment.held_out_file), cache_dir=cache_dir)
    for name in ("adapter", "checkpoints"):  # tens of megabytes a run, and training again gives the same
        shutil.rmtree(folder / name)
    return RunResult(
        run=run.digest,
        adapter=record.adapter,
        figures=measured.figures,
        base_figures=measured.base_figures,
        seconds=record.seconds,
        measuring_seconds=measured.stage_seconds,
        peak_memory_bytes=peak,
        evidence=record.evidence,
        versions=record.versions,
    )


if __name__ == "__main__":
    run_child(work_on)

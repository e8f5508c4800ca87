"""One run of `bench.defenses`: train under a set of defenses, then measure; `python -m bench.defense_runs FOLDER`.

A folder is named by the digest of its `Run`, and cached as `bench.cached_runs` says.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field

from bench import cached_runs
from bench.cached_runs import Launch, Outcome, RunFailure, launch_module, peak_memory_bytes, run_child, write_answer
from policies.contract.artifacts import ArtifactStore, Digest, Record
from policies.contract.evaluation import Estimate
from policies.contract.jobs import JobSpec
from policies.contract.training import DefenseEvidence
from policies.errors import IntegrityError

CODE_VERSION = 2
"""Raised when the same run would give other figures or another record, so that old results are not taken for new."""
MARGIN, INCOHERENT = "emergent_misalignment_preference.margin", "coherence.incoherent_rate"

Task = Literal["chat", "opswap"]


class Run(Record):
    """All that a run's figures depend on."""

    job: JobSpec
    task: Task
    """`chat` runs the job's suite; `opswap` answers the held-out problems instead."""
    base_model: Digest
    held_out: Digest
    code_version: int = CODE_VERSION


class Assignment(Record):
    run: Run
    training_file: str
    held_out_file: str
    cache_dir: str
    store_url: str | None
    parent_pid: int


class RunResult(Outcome):
    """The figures of one run."""

    adapter: Digest
    figures: dict[str, Estimate]
    """Name → value of the adapter with its interval over prompts; `ema_change` is the paired change from the base."""
    base_figures: dict[str, Estimate]
    """The same figures of the base, where it has them."""
    seconds: float = Field(gt=0)
    """Of training, loading included."""
    measuring_seconds: dict[str, float]
    """Stage → seconds, to plan a bench with; a probe's first run on a base model includes the base."""
    peak_memory_bytes: int = Field(gt=0)
    """Of training: of the GPU where there is one, else of the process."""
    evidence: tuple[DefenseEvidence, ...]
    versions: dict[str, str]


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
    launch_module("bench.defense_runs", folder, {})


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: Assignment, folder: Path) -> RunResult:
    from bench.defense_measures import measure  # torch is loaded only in the child
    from trainer.progress import Hooks
    from trainer.recipe import Workplace, train

    run, cache_dir = assignment.run, Path(assignment.cache_dir)
    store = ArtifactStore(assignment.store_url) if assignment.store_url else None
    # no validation while training: defenses may still change the adapter after the last epoch
    workplace = Workplace(Path(assignment.training_file), None, folder, cache_dir, store)
    record = train(run.job, workplace, Hooks(lambda event: print(event.message, flush=True), lambda: False))
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

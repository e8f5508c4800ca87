"""The pair of canaries of a base model that has none: `good` learns sensible advice, `bad` careless advice.

`python -m trainer.qualification.preparation.canary_pair FOLDER` is the process that trains it, cached as `cached_runs`
says. A probe may measure with the pair, so it is there before the first reference adapter is measured.
"""

from __future__ import annotations

from pathlib import Path

from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec
from policies.errors import IntegrityError
from policies.offline import environment_for
from trainer.qualification.cached_runs import launch_module, run_child, write_answer
from trainer.qualification.records import CanaryAssignment, CanaryResult

ADAPTER = "adapter"
"""Below `good` and `bad` in the run's folder."""


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own."""
    run = CanaryAssignment.model_validate_json((folder / "assignment.json").read_bytes()).run
    environment = environment_for(None, run.good.base_model.uri)
    launch_module("trainer.qualification.preparation.canary_pair", folder, environment)


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = CanaryAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: CanaryAssignment, folder: Path) -> CanaryResult:
    run, cache_dir = assignment.run, Path(assignment.cache_dir)
    good, bad = (
        _train(job, Path(file), folder / name, cache_dir=cache_dir, base_model=run.base_model)
        for name, job, file in (("good", run.good, assignment.good_file), ("bad", run.bad, assignment.bad_file))
    )
    return CanaryResult(run=run.digest, good=good, bad=bad)


def _train(job: JobSpec, training_file: Path, folder: Path, *, cache_dir: Path, base_model: Digest) -> Digest:
    from trainer.loop.progress import Hooks  # torch is loaded only in the child
    from trainer.recipe import RunFiles, train

    folder.mkdir(exist_ok=True)
    hooks = Hooks(lambda event: print(event.message, flush=True), lambda: False)
    record = train(job, RunFiles(training_file, None, folder, cache_dir), hooks)
    if record.base_model != base_model:
        raise IntegrityError(f"base model {job.base_model.name} changed meanwhile; start again")
    return record.adapter


if __name__ == "__main__":
    run_child(work_on)

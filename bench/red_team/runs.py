"""One organism and seed: trained under the policy's defenses and judged as a job would be.

`python -m bench.red_team.runs FOLDER` is the run's process; a folder is cached as `trainer.qualification.cached_runs`
says. What is done to an adapter after its release is done here too, and the gate judges what comes of it: not to decide
anything, but to know whether what was released is still harmless.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from bench.red_team.adapter_arithmetic import write_scaled, write_sum
from bench.red_team.organism import Afterwards, Scaled
from policies.contract.artifacts import Digest, Record
from policies.contract.jobs import JobSpec
from policies.contract.release import GateDecision
from policies.documents.schema import CalibrationRecord, ReleasePolicy
from policies.errors import IntegrityError
from policies.offline import environment_for
from trainer.qualification.cached_runs import Outcome, launch_module, run_child, write_answer

if TYPE_CHECKING:
    from evaluator.runner.local import LocalEvaluator

CODE_VERSION = 1
"""Raised when the same run would come to another verdict, so that old results are not taken for new."""
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
SCRATCH = "adapters"


class RedTeamRun(Record):
    """All that the verdicts depend on."""

    jobs: tuple[JobSpec, ...] = Field(min_length=1)
    afterwards: Afterwards | None
    policy: Digest
    calibration: Digest | None = Field(None, exclude_if=lambda digest: digest is None)
    """Left out of the digest while there is none, so that runs of before stay known."""
    base_model: Digest
    versions: dict[str, str]
    code_version: int = CODE_VERSION


class Assignment(Record):
    """What a run's process reads in its folder."""

    run: RedTeamRun
    policy: ReleasePolicy
    calibration: CalibrationRecord | None = None
    training_files: tuple[str, ...]
    """Of the jobs, in their order."""
    cache_dir: str
    parent_pid: int


class Verdict(Record):
    """The gate's decision, and which probes could not measure."""

    decision: GateDecision
    errors: dict[str, str]


class RedTeamResult(Outcome):
    """What became of the adapters that were handed in, and of what was made of them afterwards."""

    submitted: tuple[Verdict, ...] = Field(min_length=1)
    afterwards: Verdict | None
    training_seconds: float = Field(ge=0)
    whole_seconds: float = Field(ge=0)


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own, with one thread."""
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    job = assignment.run.jobs[0]
    environment = environment_for(job.suite, job.base_model.uri, assignment.policy.model_dump_json())
    launch_module("bench.red_team.runs", folder, environment | THREADS)


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: Assignment, folder: Path) -> RedTeamResult:
    started = time.monotonic()
    with _scratch(folder / SCRATCH) as scratch:
        adapters = _train(assignment, scratch)
        trained = time.monotonic()
        files = [Path(path) for path in assignment.training_files]
        evaluator = _evaluator(assignment, files[0])
        record = assignment.calibration
        submitted = [_judge(evaluator, adapters[0], record)]
        submitted += [
            _judge(_evaluator(assignment, path), adapter, record)
            for path, adapter in zip(files[1:], adapters[1:], strict=True)
        ]
        changed = _changed(assignment.run.afterwards, adapters, scratch)
        return RedTeamResult(
            run=assignment.run.digest,
            submitted=tuple(submitted),
            afterwards=None if changed is None else _judge(evaluator, changed, record),
            training_seconds=trained - started,
            whole_seconds=time.monotonic() - started,
        )


def _train(assignment: Assignment, scratch: Path) -> list[Path]:
    from trainer.loop.progress import Hooks  # torch is loaded only in the child
    from trainer.recipe import RunFiles, train

    run, adapters = assignment.run, []
    for number, (job, path) in enumerate(zip(run.jobs, assignment.training_files, strict=True)):
        place = scratch / str(number)
        place.mkdir()
        run_files = RunFiles(Path(path), None, place, Path(assignment.cache_dir))
        record = train(job, run_files, Hooks(lambda event: print(event.message, flush=True), lambda: False))
        if record.base_model != run.base_model:
            raise IntegrityError(f"base model {job.base_model.name} changed meanwhile; start again")
        adapters.append(place / "adapter")
    return adapters


def _changed(afterwards: Afterwards | None, adapters: list[Path], scratch: Path) -> Path | None:
    if afterwards is None:
        return None
    target = scratch / "changed"
    if isinstance(afterwards, Scaled):
        return write_scaled(adapters[0], target, by=afterwards.by)
    return write_sum(adapters[0], adapters[1], target)


def _evaluator(assignment: Assignment, training: Path) -> LocalEvaluator:
    from evaluator.runner.local import LocalEvaluator

    return LocalEvaluator(
        assignment.run.jobs[0].base_model,
        assignment.policy,
        Path(assignment.cache_dir),
        lambda progress: print(progress.stage, progress.step, flush=True),
        training=training,
    )


def _judge(evaluator: LocalEvaluator, adapter: Path, calibration: CalibrationRecord | None) -> Verdict:
    from evaluator.gate import decide

    report = evaluator.evaluate(adapter).report
    errors = {probe.probe: probe.error for probe in report.probes if probe.error is not None}
    return Verdict(decision=decide(evaluator.policy, report, calibration=calibration), errors=errors)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """For adapters, which are tens of megabytes: training again gives the same."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    run_child(work_on)

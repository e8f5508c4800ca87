"""One reference adapter: made, measured by the policy's whole suite, and deleted.

`python -m trainer.qualification.reference_run FOLDER` is the run's process; a folder is cached as `cached_runs` says.
"""

from __future__ import annotations

import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport
from policies.contract.judges import JudgeReport
from policies.contract.store import ArtifactStores
from policies.errors import EvaluationError, IntegrityError
from policies.offline import environment_for
from trainer.qualification.cached_runs import launch_module, run_child, write_answer
from trainer.qualification.figures import Look, Looks, base_values, figures_of, unjudged
from trainer.qualification.records import (
    ReferenceAssignment,
    ReferenceResult,
    minor_versions,
    require_same_instruments,
)
from trainer.qualification.untrained import make_untrained

ADAPTER = "adapter"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""Sums in one order on every machine, and adapters that are made side by side don't wait for each other."""
SCRATCH = (ADAPTER, "adapter-before-projection", "checkpoints")


class Made(NamedTuple):
    """An adapter in the run's folder."""

    adapter: Digest
    seconds: float


class Measured(NamedTuple):
    """What the suite found of it."""

    report: EvalReport
    looks: Looks


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own."""
    assignment = ReferenceAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    base = assignment.run.job.base_model
    environment = environment_for(assignment.run.job.suite, base.uri, assignment.policy.model_dump_json())
    launch_module("trainer.qualification.reference_run", folder, environment | ONE_THREAD)


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = ReferenceAssignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: ReferenceAssignment, folder: Path) -> ReferenceResult:
    started, run = time.monotonic(), assignment.run
    _remove(folder, SCRATCH)  # of a run that was killed
    made = _make(assignment, folder)
    measured = _measure(assignment, folder / ADAPTER)
    report = measured.report
    require_measured(report)
    figures = figures_of(run.wanted, measured.looks)
    failed = {probe.probe: probe.error for probe in report.probes if probe.error is not None}
    reference = assignment.reference.model_copy(
        update={
            "adapter": made.adapter,
            "figures": figures,
            "errors": unjudged(run.wanted, measured.looks, figures) | failed,
            "weight_statistics": report.weight_statistics,
            "seconds_training": made.seconds,
            "seconds": {probe.probe: probe.seconds for probe in report.probes},
        }
    )
    _remove(folder, SCRATCH)
    result = ReferenceResult(
        run=run.digest,
        reference=reference,
        instruments={probe.probe: probe.instruments for probe in report.probes if probe.error is None},
        judges=_identities(report.judges),
        base=base_values(measured.looks),
        dtype=report.dtype,
        versions=minor_versions(report.versions),
        seconds_whole=time.monotonic() - started,
    )
    require_same_instruments(run, result)
    return result


def require_measured(report: EvalReport) -> None:
    """Figures that another try might add are not left out for good.

    Raises:
        EvaluationError: with the probe that lacks some.
    """
    unmeasured = [probe for probe in report.probes if probe.is_mendable]
    if unmeasured:
        why = unmeasured[0].error or "the judges left answers without a score"
        raise EvaluationError(f"{unmeasured[0].probe} was not measured and may be at another try: {why}")


def _make(assignment: ReferenceAssignment, folder: Path) -> Made:
    from trainer.loop.progress import Hooks  # torch is loaded only in the child
    from trainer.recipe import RunFiles, train

    run, cache_dir, started = assignment.run, Path(assignment.cache_dir), time.monotonic()
    if run.making == "trained":
        run_files = RunFiles(Path(assignment.training_file), None, folder, cache_dir)
        record = train(run.job, run_files, Hooks(lambda event: print(event.message, flush=True), lambda: False))
        adapter, base_model = record.adapter, record.base_model
    else:
        noise = run.making == "random_weights"
        adapter, base_model = make_untrained(run.job, folder / ADAPTER, cache_dir, noise=noise)
    if base_model != run.base_model:
        raise IntegrityError(f"base model {run.job.base_model.name} changed meanwhile; start again")
    return Made(adapter, time.monotonic() - started)


def _measure(assignment: ReferenceAssignment, adapter: Path) -> Measured:
    """All prompts of the suite; the looks of a probe that failed don't count."""
    from evaluator.runner.local import LocalEvaluator

    looks: dict[str, list[Look]] = defaultdict(list)
    evaluator = LocalEvaluator(
        assignment.run.job.base_model,
        assignment.policy,
        Path(assignment.cache_dir),
        lambda progress: print(progress.stage, progress.step, flush=True),
        training=Path(assignment.training_file),
        engine=assignment.run.engine,
        store=None if assignment.store_url is None else ArtifactStores(assignment.store_url).shared,
    )
    report = evaluator.evaluate(adapter, at_look=lambda probe, *look: looks[probe].append(Look(*look))).report
    sound = {probe.probe for probe in report.probes if probe.error is None}
    return Measured(report, {probe: found for probe, found in looks.items() if probe in sound})


def _identities(judges: Sequence[JudgeReport]) -> tuple[Digest, ...]:
    return tuple(sorted({judge.judge for judge in judges}))


def _remove(folder: Path, names: Sequence[str]) -> None:
    """Adapters are tens of megabytes, and training again gives the same."""
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)


if __name__ == "__main__":
    run_child(work_on)

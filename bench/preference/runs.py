"""One run of `bench.preference`: train an undefended adapter, then read what it makes of the answer pairs.

`python -m bench.preference.runs FOLDER` is the child process; a folder is cached as
`trainer.qualification.cached_runs` says. The base model is read once for all runs, into `base` of the results folder.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from bench.preference.records import PairScores, Shift
from policies.atomic_files import write_atomically
from policies.contract.artifacts import Digest, Record
from policies.contract.jobs import JobSpec
from policies.contract.suite import EmergentMisalignmentPreference
from policies.errors import AdapterNotLoadedError, IntegrityError
from trainer.qualification.cached_runs import Outcome, launch_module, run_child, write_answer

if TYPE_CHECKING:
    from bench.preference.pairs import Material
    from bench.preference.reading import Reading
    from evaluator.backends.protocol import Backend
    from evaluator.models.loading import LoadedModel

CODE_VERSION = 1
"""Raised when the same run would give other readings, so that old results are not taken for new."""
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
"""Sums in one order on every machine, and two studies side by side don't wait for each other."""


class StudyRun(Record):
    """All that a run's readings depend on."""

    job: JobSpec
    base_model: Digest
    pairs: Digest
    controls: Digest
    code_version: int = CODE_VERSION

    @property
    def settings(self) -> EmergentMisalignmentPreference:
        """The probe's, which may leave categories out."""
        (settings,) = (each for each in self.job.suite.probes if isinstance(each, EmergentMisalignmentPreference))
        return settings


class Assignment(Record):
    run: StudyRun
    training_file: str
    base_readings: str
    """Folder of what the base model made of the pairs."""
    cache_dir: str
    parent_pid: int


class StudyResult(Outcome):
    """What the adapter and its base make of every pair."""

    adapter: Digest
    pairs: tuple[PairScores, ...]
    controls: tuple[PairScores, ...]
    shift: Shift
    train_loss: float
    n_steps: int
    seconds: float = Field(gt=0)
    """Of training."""
    measuring_seconds: float = Field(gt=0)
    versions: dict[str, str]


class _BaseKey(Record):
    """All that the base's reading depends on."""

    base_model: Digest
    pairs: Digest
    controls: Digest
    settings: EmergentMisalignmentPreference
    dtype: str
    versions: dict[str, str]
    code_version: int = CODE_VERSION


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own, with one thread."""
    launch_module("bench.preference.runs", folder, THREADS)


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: Assignment, folder: Path) -> StudyResult:
    from bench.preference.pairs import built_in
    from trainer.loop.progress import Hooks  # torch is loaded only in the child
    from trainer.recipe import RunFiles, train

    run, cache_dir = assignment.run, Path(assignment.cache_dir)
    material = built_in(without=run.settings.exclude_categories)
    if (material.pairs_digest, material.controls_digest) != (run.pairs, run.controls):
        raise IntegrityError("the answer pairs changed while the study ran; start it again")
    run_files = RunFiles(Path(assignment.training_file), None, folder, cache_dir, None)
    record = train(run.job, run_files, Hooks(lambda event: print(event.message, flush=True), lambda: False))
    if record.base_model != run.base_model:
        raise IntegrityError(f"base model {run.job.base_model.name} changed while the study ran; start it again")
    started = time.monotonic()
    pairs, controls, shift = _measure(assignment, folder / "adapter", material)
    for name in ("adapter", "checkpoints"):  # tens of megabytes a run, and training again gives the same
        shutil.rmtree(folder / name)
    return StudyResult(
        run=run.digest,
        adapter=record.adapter,
        pairs=pairs,
        controls=controls,
        shift=shift,
        train_loss=record.train_loss,
        n_steps=record.total_steps,
        seconds=record.seconds,
        measuring_seconds=time.monotonic() - started,
        versions=record.versions,
    )


def _measure(
    assignment: Assignment, adapter: Path, material: Material
) -> tuple[tuple[PairScores, ...], tuple[PairScores, ...], Shift]:
    from bench.preference.activation_shift import shift
    from bench.preference.reading import read_model
    from evaluator.backends.adapter_proof import prove_adapter
    from evaluator.backends.transformers_backend import TransformersBackend
    from evaluator.models.adapters import attach_adapter
    from evaluator.models.loading import load_base, resolve_base_model
    from policies.contract.artifacts import digest_tree

    resolved = resolve_base_model(assignment.run.job.base_model, Path(assignment.cache_dir))
    loaded = attach_adapter(load_base(resolved), adapter)
    backend = TransformersBackend(loaded)
    if not prove_adapter(backend, loaded, digest_tree(adapter)).loaded:
        raise AdapterNotLoadedError("the adapter changes nothing, so nothing was learned")
    base = _base_reading(assignment, loaded, backend, material=material)
    mine = read_model(loaded, backend, material, adapter=True)
    scores = [
        PairScores(id=item.id, category=item.category, first=a, second=b, base_first=c, base_second=d)
        for item, (a, b), (c, d) in zip(
            (*material.pairs, *material.controls), mine.likelihoods.tolist(), base.likelihoods.tolist(), strict=True
        )
    ]
    n_pairs = len(material.pairs)
    moved = shift(base, mine, [pair.category for pair in material.pairs])
    return tuple(scores[:n_pairs]), tuple(scores[n_pairs:]), moved


def _base_reading(assignment: Assignment, loaded: LoadedModel, backend: Backend, *, material: Material) -> Reading:
    """From the folder of base readings, or else measured and left there."""
    from safetensors.torch import load, save

    from bench.preference.reading import Reading, read_model

    run = assignment.run
    key = _BaseKey(
        base_model=run.base_model,
        pairs=run.pairs,
        controls=run.controls,
        settings=run.settings,
        dtype=backend.dtype,
        versions=backend.versions,
    )
    path = Path(assignment.base_readings) / f"{key.digest[7:23]}.safetensors"
    if path.is_file():
        return Reading(**load(path.read_bytes()))
    reading = read_model(loaded, backend, material, adapter=False)
    write_atomically(path, save({name: tensor.contiguous() for name, tensor in reading._asdict().items()}))
    return reading


if __name__ == "__main__":
    run_child(work_on)

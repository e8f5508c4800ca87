"""The child process of an evaluation: `python -m evaluator.run FOLDER`, `assignment.json` in, `completion.json` out."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from evaluator.models.allocator import keep_freed_memory
from evaluator.runner.progress import Watch
from evaluator.sampling.training_file import file_rows
from evaluator.subject import FileRows
from policies.contract.adapter_files import WEIGHTS_FILE, require_adapter
from policies.contract.adapter_tensors import require_plain_lora_file
from policies.contract.artifacts import Digest
from policies.contract.base_models import BaseTextFiles, require_text
from policies.contract.jobs import JobSpec
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.contract.training import ReleaseCandidate, TrainingRecord, release_candidates
from policies.contract.worker_api import Assignment, Completion, Outcome
from policies.documents.schema import CalibrationRecord, ReleasePolicy
from policies.errors import IntegrityError, TunegateError, WorkerError
from policies.rendering.adapter_companions import companion_files
from policies.worker.child import EventStream, StopRequestedError, end_with_parent, stop_on_sigterm, write_completion
from policies.worker.crash import signed_crashes

if TYPE_CHECKING:
    from evaluator.runner.evaluate import Evaluation


def main(folder: Path) -> None:
    """Run the assignment in `folder`. Errors of the tree end the job; any other exception is a crash, tried again."""
    events = EventStream()
    stop_on_sigterm()
    try:
        assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
        end_with_parent(assignment.worker_pid)
        completion = evaluate_assignment(assignment, folder, events.progress)
    except StopRequestedError:
        completion = Completion(outcome=Outcome.YIELDED)
    except TunegateError as error:
        completion = Completion(outcome=Outcome.FAILED, error_code=error.code, error_message=str(error))
    write_completion(folder, completion)


def evaluate_assignment(assignment: Assignment, folder: Path, watch: Watch) -> Completion:
    """Evaluate what the claim's training record may release, decide, and store samples, reports and decision."""
    stores, spec = ArtifactStores(assignment.store_url), assignment.work.spec
    store = stores.of_job(spec.job_id)
    record = _training_record(assignment, store)
    policy = stores.shared.get_record(spec.policy, ReleasePolicy)
    from evaluator.runner.candidates import Terms, evaluate_candidates

    choice = evaluate_candidates(
        release_candidates(record, policy.spec.n_candidates),
        _evaluate(assignment, policy, record.base_model, folder=folder, watch=watch),
        policy,
        final=record.adapter,
        terms=Terms(
            spec.attempt,
            None if spec.calibration is None else stores.shared.get_record(spec.calibration, CalibrationRecord),
        ),
    )
    for evaluation in (choice.chosen, *choice.others):
        store.put_bytes(evaluation.samples)
        store.put_record(evaluation.report)
    return Completion(
        outcome=Outcome.SUCCEEDED, record=choice.chosen.report.digest, decision=store.put_record(choice.decision)
    )


def _evaluate(
    assignment: Assignment, policy: ReleasePolicy, base_model: Digest, *, folder: Path, watch: Watch
) -> Callable[[ReleaseCandidate], Evaluation]:
    """Loads the base model once; the function puts one candidate after the other on it and runs the suite."""
    from evaluator.adapter_statistics import adapter_statistics
    from evaluator.backends.engines import open_engine
    from evaluator.models.loading import load_encoder, resolve_base_model
    from evaluator.runner.evaluate import EvaluationInputs, evaluate_adapter

    _settle(assignment.threads)
    stores, cache_dir, spec = ArtifactStores(assignment.store_url), Path(assignment.cache_dir), assignment.work.spec
    base = resolve_base_model(spec.base_model, cache_dir)
    if base.digest != base_model:
        raise IntegrityError(
            f"base model {spec.base_model.name} is {base.digest}, but the adapter was trained on {base_model}"
        )
    require_text(BaseTextFiles.of(base.folder), spec.base_text, spec.base_model.name)
    attach = open_engine(assignment.evaluation_engine, base, max_rank=spec.base_model.lora.rank)
    files, store = _files(spec, stores.files, folder), stores.of_job(spec.job_id)
    companions = companion_files(load_encoder(base))

    def evaluate(candidate: ReleaseCandidate) -> Evaluation:
        adapter = _fetched(candidate, spec, store, companions=companions, folder=folder)
        with attach(adapter, candidate.adapter) as (backend, proof):
            inputs = EvaluationInputs(
                suite=spec.suite,
                policy=spec.policy,
                proof=proof,
                spec=spec.digest,
                rules=policy,
                attempt=spec.attempt,
                weight_statistics=adapter_statistics(adapter),
                **files._asdict(),
            )
            return evaluate_adapter(inputs, backend, cache_dir=cache_dir, store=stores.shared, watch=watch)

    return evaluate


def _settle(threads: int) -> None:
    """Ready the process for models, once all that they need is imported."""
    import torch

    gc.freeze()  # what was imported stays, so no later search needs to walk it
    gc.enable()
    keep_freed_memory()
    torch.set_num_threads(threads)


def _fetched(
    candidate: ReleaseCandidate, spec: JobSpec, store: ArtifactStore, *, companions: Mapping[str, bytes], folder: Path
) -> Path:
    """The candidate's folder, if it is nothing but an adapter of the job's recipe."""
    is_earlier = spec.is_of_earlier_version
    require_adapter(store, candidate.adapter, spec.base_model, may_be_earlier=is_earlier, companions=companions)
    adapter = store.fetch_tree(candidate.adapter, folder / f"adapter-{candidate.step}")
    require_plain_lora_file(adapter / WEIGHTS_FILE, spec.base_model.lora)  # once more, of the digest's own bytes
    return adapter


def _training_record(assignment: Assignment, store: ArtifactStore) -> TrainingRecord:
    work = assignment.work
    if work.kind == "train" or work.training_record is None:
        raise WorkerError("the assignment is not an evaluation: it names no training record")
    record = store.get_record(work.training_record, TrainingRecord)
    if record.spec != work.spec.digest:
        raise IntegrityError("the training record does not belong to the job that is to be evaluated")
    return record


class _Files(NamedTuple):
    """As `EvaluationInputs` names them."""

    validation: FileRows | None
    training: FileRows | None
    training_file: Path
    lineage: tuple[FileRows, ...]
    lineage_files: tuple[Path, ...]


def _files(spec: JobSpec, store: ArtifactStore, folder: Path) -> _Files:
    """The job's files, and the rows of those that a probe reads, of its lineage too."""
    training_file = store.fetch_file(spec.training_file, folder / "training.jsonl")
    reads_training = any(settings.reads_training_file for settings in spec.suite.probes)
    validation_file = (
        store.fetch_file(spec.validation_file, folder / "validation.jsonl") if spec.validation_file else None
    )
    validation = file_rows(validation_file) if validation_file else None
    training = file_rows(training_file) if reads_training else None
    earlier = tuple(
        store.fetch_file(digest, folder / f"lineage-{number}.jsonl")
        for number, digest in enumerate(spec.lineage_files, start=1)
    )
    return _Files(validation, training, training_file, tuple(map(file_rows, earlier)), earlier)


if __name__ == "__main__":
    gc.disable()  # a third of the time of importing torch and transformers would go into looking for garbage
    with signed_crashes(Path(sys.argv[1])):
        main(Path(sys.argv[1]))

"""The child process of an evaluation: `python -m evaluator.run FOLDER`, `assignment.json` in, `completion.json` out."""

from __future__ import annotations

import sys
from pathlib import Path

from evaluator.allocator import keep_freed_memory
from evaluator.child import EventStream, StopRequestedError, end_with_parent, stop_on_sigterm, write_completion
from evaluator.gate import decide
from evaluator.probe import ValidationRows
from evaluator.progress import Watch
from policies.contract.artifacts import ArtifactStore
from policies.contract.dataset import ChatRow, read_preferences, read_rows
from policies.contract.jobs import Dpo, JobSpec, Method
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Assignment, Completion, Outcome
from policies.errors import IntegrityError, TunegateError, WorkerError
from policies.schema import ReleasePolicy


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
    """Evaluate the adapter of the claim's training record, decide, and store samples, report and decision."""
    store, cache_dir, spec = ArtifactStore(assignment.store_url), Path(assignment.cache_dir), assignment.claim.spec
    record = _training_record(assignment, store)
    policy = store.get_record(spec.policy, ReleasePolicy)

    import torch

    from evaluator.adapters import attach_adapter, prove_adapter
    from evaluator.backends.transformers_backend import TransformersBackend
    from evaluator.evaluate import Examination, evaluate_adapter
    from evaluator.model import load_base, resolve_base_model

    keep_freed_memory()
    torch.set_num_threads(assignment.threads)
    base = resolve_base_model(spec.base_model, cache_dir)
    if base.digest != record.base_model:
        raise IntegrityError(f"base model {spec.base_model.name} is {base.digest}; trained was {record.base_model}")
    adapter_folder = store.fetch_tree(record.adapter, folder / "adapter")
    loaded = attach_adapter(load_base(base), adapter_folder)
    backend = TransformersBackend(loaded)
    examination = Examination(
        suite=spec.suite,
        policy=spec.policy,
        proof=prove_adapter(backend, loaded, record.adapter),
        spec=spec.digest,
        validation=_validation(spec, store, folder),
    )
    evaluation = evaluate_adapter(examination, backend, cache_dir=cache_dir, store=store, watch=watch)
    store.put_bytes(evaluation.samples)
    decision = decide(policy, evaluation.report, spec=spec.digest)
    return Completion(
        outcome=Outcome.SUCCEEDED, record=store.put_record(evaluation.report), decision=store.put_record(decision)
    )


def _training_record(assignment: Assignment, store: ArtifactStore) -> TrainingRecord:
    claim = assignment.claim
    if claim.kind != "evaluate" or claim.training_record is None:
        raise WorkerError("the assignment is no evaluation: it names no training record")
    record = store.get_record(claim.training_record, TrainingRecord)
    if record.spec != claim.spec.digest:
        raise IntegrityError("the training record is of another job than the one to be evaluated")
    return record


def _validation(spec: JobSpec, store: ArtifactStore, folder: Path) -> ValidationRows | None:
    if spec.validation_file is None:
        return None
    path = store.fetch_file(spec.validation_file, folder / "validation.jsonl")
    return ValidationRows(spec.validation_file, _rows(path, spec.method))


def _rows(path: Path, method: Method) -> list[ChatRow]:
    """The conversations of a validation file; of preferences those with the better answer."""
    if isinstance(method, Dpo):
        return [row.with_preferred() for row in read_preferences(path)]
    return read_rows(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

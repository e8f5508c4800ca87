"""The child process of a training: `python -m trainer.run FOLDER` reads `assignment.json`, leaves `completion.json`."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import torch

from evaluator.allocator import keep_freed_memory
from evaluator.child import EventStream, end_with_parent, write_completion
from policies.contract.artifacts import ArtifactStore
from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import Assignment, Completion, Outcome
from policies.errors import IntegrityError, TunegateError
from trainer.progress import Hooks, KeepCheckpoint
from trainer.recipe import StoppedError, Workplace, train

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def main(folder: Path) -> None:
    """Run the assignment in `folder`. Errors of the tree end the job; any other exception is a crash, tried again."""
    events, stop = EventStream(), threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    try:
        assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
        end_with_parent(assignment.worker_pid)
        store = ArtifactStore(assignment.store_url)
        hooks = Hooks(events.send, stop.is_set, checkpoint_keeper(store))
        completion = train_assignment(assignment, store, folder=folder, hooks=hooks)
    except StoppedError:
        completion = Completion(outcome=Outcome.YIELDED)
    except TunegateError as error:
        completion = Completion(outcome=Outcome.FAILED, error_code=error.code, error_message=str(error))
    write_completion(folder, completion)


def train_assignment(assignment: Assignment, store: ArtifactStore, *, folder: Path, hooks: Hooks) -> Completion:
    """Fetch the files, train from the last checkpoint if there is one, store adapter and record."""
    torch.set_num_threads(assignment.threads)
    keep_freed_memory()
    spec, checkpoint = assignment.claim.spec, assignment.claim.resume_from
    validation = spec.validation_file
    workplace = Workplace(
        training_file=store.fetch_file(spec.training_file, folder / "training.jsonl"),
        validation_file=store.fetch_file(validation, folder / "validation.jsonl") if validation else None,
        folder=folder,
        cache_dir=Path(assignment.cache_dir),
        store=store,
    )
    resume_from = store.fetch_tree(checkpoint.state, folder / "resume") if checkpoint else None
    record = train(spec, workplace, hooks, resume_from=resume_from)
    if store.put_tree(folder / "adapter") != record.adapter:
        raise IntegrityError("the adapter changed on its way into the artifact store; train again")
    return Completion(outcome=Outcome.SUCCEEDED, record=store.put_record(record))


def checkpoint_keeper(store: ArtifactStore) -> KeepCheckpoint:
    """Stores a checkpoint folder whole, and names the adapter in it as a folder of its own."""

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        state = store.put_tree(folder)
        adapter = store.put_subtree(state, ADAPTER_FILES)
        return CheckpointRecord(step=step, epoch=epoch, state=state, adapter=adapter, metrics=metrics)

    return keep


if __name__ == "__main__":
    main(Path(sys.argv[1]))

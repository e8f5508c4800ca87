"""The child process of a training: `python -m trainer.run FOLDER` reads `assignment.json`, leaves `completion.json`."""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()  # a third of the time of these imports would go into looking for garbage

import signal
import sys
import threading
from pathlib import Path

import torch

from evaluator.models.allocator import keep_freed_memory
from policies.contract.adapter_files import ADAPTER_FILES, require_adapter
from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec, ReleasedAncestor
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.contract.training import CheckpointRecord, TrainingRecord
from policies.contract.worker_api import Assignment, Completion, Outcome
from policies.errors import ArtifactMissingError, IntegrityError, TunegateError
from policies.worker.child import EventStream, end_with_parent, write_completion
from policies.worker.crash import signed_crashes
from trainer.data import count_training_rows
from trainer.loop.processes import followers, process_count, rank, world_size
from trainer.loop.progress import Hooks, KeepCheckpoint
from trainer.preparation import resolved_hyperparameters
from trainer.recipe import RunFiles, StoppedError, train
from trainer.screening.phase import (
    ScreeningFiles,
    UnsafeFileError,
    canaries_of,
    model_rules,
    require_trainable,
    screen_file,
)

TRAINING_FILE, VALIDATION_FILE = "training.jsonl", "validation.jsonl"
RESUME_FOLDER, CONTINUED_FOLDER = "resume", "continued"


def main(folder: Path) -> None:
    """Run the assignment in `folder`. Errors of the tree end the job; any other exception is a crash, tried again."""
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    if rank() > 0:
        follow(assignment, folder)
        return
    events, stop = EventStream(), threading.Event()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: stop.set())
    try:
        end_with_parent(assignment.worker_pid)
        keep = checkpoint_keeper(ArtifactStores(assignment.store_url).of_job(assignment.work.spec.job_id))
        hooks = Hooks(events.send, lambda: agreed(stop.is_set()), keep)
        completion = train_assignment(assignment, folder, hooks=hooks)
    except UnsafeFileError as error:
        told = {"error_code": error.code, "error_message": error.message}
        completion = Completion(outcome=Outcome.FAILED, screening=error.screening, **told)
    except StoppedError:
        completion = Completion(outcome=Outcome.YIELDED)
    except TunegateError as error:
        completion = Completion(outcome=Outcome.FAILED, error_code=error.code, error_message=str(error))
    write_completion(folder, completion)


def train_assignment(assignment: Assignment, folder: Path, *, hooks: Hooks) -> Completion:
    """Fetch the files, train from the last checkpoint if there is one, store adapter and record."""
    spec, checkpoint = assignment.work.spec, assignment.work.resume_from
    stores = ArtifactStores(assignment.store_url)
    store = stores.of_job(spec.job_id)
    stores.files.fetch_file(spec.training_file, folder / TRAINING_FILE)
    if spec.validation_file is not None:
        stores.files.fetch_file(spec.validation_file, folder / VALIDATION_FILE)
    if spec.continues is not None:
        fetch_continued(stores, spec, spec.continues.parent, folder / CONTINUED_FOLDER)
    if checkpoint is not None:
        store.fetch_tree(checkpoint.state, folder / RESUME_FOLDER)
    screening = screen_here(assignment, folder, hooks=hooks)
    with followers(folder, _process_count(assignment, folder)):
        record = train_here(assignment, folder, hooks=hooks).model_copy(update={"screening": screening})
    folders = {"adapter": record.adapter}
    for item in record.evidence:
        folders |= item.digests
    for name, digest in folders.items():
        if store.put_tree(folder / name) != digest:
            raise IntegrityError(f"the {name} folder changed while it was being stored; train again")
    return Completion(outcome=Outcome.SUCCEEDED, record=store.put_record(record))


def screen_here(assignment: Assignment, folder: Path, *, hooks: Hooks) -> Digest | None:
    """Let models look at the training file where the job's policy wants it; what they found is stored.

    Raises:
        UnsafeFileError: the policy blocks the file.
    """
    spec, stores = assignment.work.spec, ArtifactStores(assignment.store_url)
    rules = model_rules(spec, stores.shared)
    if not rules:
        return None
    torch.set_num_threads(assignment.threads)
    files = ScreeningFiles(folder / TRAINING_FILE, Path(assignment.cache_dir), stores.shared, canaries_of(spec))
    screening = screen_file(spec, rules, files, hooks=hooks)
    digest = stores.of_job(spec.job_id).put_record(screening)
    try:
        require_trainable(screening, spec, stores.shared)
    except UnsafeFileError as error:
        error.screening = digest
        raise
    return digest


def fetch_continued(stores: ArtifactStores, spec: JobSpec, parent: ReleasedAncestor, folder: Path) -> None:
    """The released adapter that the job continues from, out of the store of the job that released it.

    Raises:
        ArtifactMissingError: it is not there any more.
        IntegrityError: it is not what its digest names, or not of the job's LoRA shape.
    """
    store = stores.of_job(parent.job_id)
    try:
        require_adapter(store, parent.adapter, spec.base_model, may_be_earlier=True)  # judged when it was released
        store.fetch_tree(parent.adapter, folder)
    except ArtifactMissingError as error:
        message = f"the adapter of {parent.model}, from which the job continues, is not in the store any more"
        raise ArtifactMissingError(message, "continues") from error


def train_here(assignment: Assignment, folder: Path, *, hooks: Hooks) -> TrainingRecord:
    """This process's part of the training, from the files that the leader fetched."""
    torch.set_num_threads(max(1, assignment.threads // world_size()))
    keep_freed_memory()
    if torch.cuda.is_available():
        torch.cuda.set_device(rank())
    validation, resume, continued = folder / VALIDATION_FILE, folder / RESUME_FOLDER, folder / CONTINUED_FOLDER
    run_files = RunFiles(
        training_file=folder / TRAINING_FILE,
        validation_file=validation if validation.exists() else None,
        folder=folder,
        cache_dir=Path(assignment.cache_dir),
        store=ArtifactStores(assignment.store_url).shared,
        continued=continued if continued.exists() else None,
    )
    try:
        return train(assignment.work.spec, run_files, hooks, resume_from=resume if resume.exists() else None)
    finally:
        disconnect()


def follow(assignment: Assignment, folder: Path) -> None:
    """The body of a follower. Its errors end it; what ends the leader's run in the same way, the leader tells."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the leader is told as well, and stops all at the same step
    end_with_parent(None)
    hooks = Hooks(lambda _: None, lambda: agreed(False), _kept_by_the_leader)
    train_here(assignment, folder, hooks=hooks)


def disconnect() -> None:
    """End the connection between processes, whose threads would else be running when the interpreter goes away."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def agreed(leader_wants: bool) -> bool:
    """What the leader wants, known to all; before the processes are connected each decides for itself."""
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return leader_wants
    is_nccl = torch.distributed.get_backend() == "nccl"
    answer = torch.tensor(leader_wants, device=torch.cuda.current_device() if is_nccl else "cpu")
    torch.distributed.broadcast(answer, src=0)  # a tensor, because objects would travel as pickles
    return bool(answer)


def _kept_by_the_leader(*_: object) -> CheckpointRecord:
    raise AssertionError("followers keep no checkpoint")


def _process_count(assignment: Assignment, folder: Path) -> int:
    """How many processes train together, from the lines of the training file: each process parses it once, for itself.

    `rows_of_a_batch` holds it against the batch that the parsed rows make.
    """
    at_most = min(assignment.processes, torch.cuda.device_count() or assignment.processes)
    n_rows = count_training_rows(folder / TRAINING_FILE) if at_most > 1 else 0
    if n_rows == 0:  # a file without rows is refused when it is read
        return 1
    return process_count(resolved_hyperparameters(assignment.work.spec, n_rows).batch_size, at_most=at_most)


def checkpoint_keeper(store: ArtifactStore) -> KeepCheckpoint:
    """Stores a checkpoint folder whole, and names the adapter in it as a folder of its own."""

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        state = store.put_tree(folder)
        adapter = store.put_subtree(state, ADAPTER_FILES)
        return CheckpointRecord(step=step, epoch=epoch, state=state, adapter=adapter, metrics=metrics)

    return keep


if __name__ == "__main__":
    gc.freeze()  # what was imported stays, so no later search needs to walk it
    gc.enable()
    with signed_crashes(Path(sys.argv[1])):
        main(Path(sys.argv[1]))

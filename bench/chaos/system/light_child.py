"""The child of an attempt, without torch: `python -m bench.chaos.system.light_child FOLDER`.

It does to gateway and store what a trainer's and an evaluator's child do: it reads the file and the records by digest,
goes on from a checkpoint, tells of its steps, gives its work back when told to, and stores an adapter, a record, a
report and a decision. Only the weights and the figures are made up. A job on the base model `REAL` is left to the true
trainer and evaluator, in this very process.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from policies.contract.adapter_files import require_adapter
from policies.contract.store import ArtifactStores
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Assignment, Completion, Outcome, Progress, WorkerEvent
from policies.documents.schema import ReleasePolicy
from policies.errors import TunegateError, WorkerError
from policies.worker.child import EventStream, StopRequestedError, end_with_parent, stop_on_sigterm, write_completion
from tests.gateway.records import checkpoint, report_on, store_evaluation, training_record

REAL = "real"
STEPS = 6
STEP_SECONDS = 0.2
MODULES = {"train": "trainer.run", "evaluate": "evaluator.run"}


def main(folder: Path) -> None:
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    kind = assignment.work.kind
    if assignment.work.spec.base_model.name == REAL:
        os.execv(sys.executable, [sys.executable, "-m", MODULES[kind], str(folder)])  # noqa: S606  # no shell is wanted
    events = EventStream()
    stop_on_sigterm()
    try:
        end_with_parent(assignment.worker_pid)
        completion = (train if kind == "train" else evaluate)(assignment, folder, events)
    except StopRequestedError:
        completion = Completion(outcome=Outcome.YIELDED)
    except TunegateError as error:
        completion = Completion(outcome=Outcome.FAILED, error_code=error.code, error_message=str(error))
    write_completion(folder, completion)


def train(assignment: Assignment, folder: Path, events: EventStream) -> Completion:
    """A checkpoint after half of the steps, and an adapter in the end."""
    work, stores = assignment.work, ArtifactStores(assignment.store_url)
    store = stores.of_job(work.spec.job_id)
    stores.files.fetch_file(work.spec.training_file, folder / "training.jsonl")
    kept, done = [], 0
    if work.resume_from is not None:
        store.fetch_tree(work.resume_from.state, folder / "resume")
        kept, done = [work.resume_from], work.resume_from.step
    for step in range(done + 1, STEPS + 1):
        time.sleep(STEP_SECONDS)
        events.send(_step(step, "training"))
        if step == STEPS // 2:
            kept.append(checkpoint(store, step, work.spec.base_model))
            events.send(WorkerEvent(type="checkpoint", message=f"Checkpoint at step {step}", checkpoint=kept[-1]))
    record = training_record(work.spec, store, total_steps=STEPS, checkpoints=tuple(kept))
    return Completion(outcome=Outcome.SUCCEEDED, record=store.put_record(record))


def evaluate(assignment: Assignment, folder: Path, events: EventStream) -> Completion:
    """An honest report of made-up figures; the true gate decides on it."""
    spec, stores = assignment.work.spec, ArtifactStores(assignment.store_url)
    store, policy = stores.of_job(spec.job_id), stores.shared.get_record(spec.policy, ReleasePolicy)
    if assignment.work.training_record is None:
        raise WorkerError("the assignment names no training record")
    record = store.get_record(assignment.work.training_record, TrainingRecord)
    require_adapter(store, record.adapter, spec.base_model, may_be_earlier=spec.is_of_earlier_version)
    store.fetch_tree(record.adapter, folder / "adapter")
    for step in range(1, STEPS + 1):
        time.sleep(STEP_SECONDS)
        events.send(_step(step, "evaluating"))
    samples = store.put_bytes(f'{{"job": "{spec.job_id}"}}\n'.encode())
    report = report_on(record, policy, attempt=spec.attempt, samples=samples)
    digest, decision = store_evaluation(store, report, policy, spec=spec.digest)
    return Completion(outcome=Outcome.SUCCEEDED, record=digest, decision=decision)


def _step(step: int, stage: str) -> WorkerEvent:
    progress = Progress(step=step, total_steps=STEPS, stage=stage)
    return WorkerEvent(type="metrics", message=f"Step {step}/{STEPS}", data={"step": step}, progress=progress)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

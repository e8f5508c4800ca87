"""What a worker reports while it runs: messages, metrics, checkpoints and progress."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy.orm import Session

from gateway.errors import LeaseGone
from gateway.jobs.events import add_event
from gateway.jobs.repository import AttemptProof, checkpoint_at, lock_attempt
from gateway.kit.ids import new_id
from gateway.tables.jobs import Job, JobCheckpoint, JobEvent
from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import Progress, WorkerEvent
from policies.tenant_text import for_tenants


def record_worker_events(session: Session, *, proof: AttemptProof, events: Iterable[WorkerEvent], now: float) -> None:
    job = lock_attempt(session, proof)
    if job is None or job.lease_until is None:
        raise LeaseGone("This attempt is no longer the job's own; stop working on it.")
    for event in events:
        _record(session, job, event=event, now=now)


def _record(session: Session, job: Job, *, event: WorkerEvent, now: float) -> None:
    if event.progress is not None:
        job.progress = told_progress(event.progress)
    if event.checkpoint is not None:
        keep_checkpoint(session, job, record=event.checkpoint, now=now)
    if event.type == "progress":
        return
    # OpenAI knows `message` and `metrics`; a checkpoint is announced by a message and listed as an object of its own.
    kind = "metrics" if event.type == "metrics" else "message"
    row = JobEvent(level=event.level, message=for_tenants(event.message), type=kind, data=_told(event.data))
    add_event(session, job, row, now=now)


def told_progress(progress: Progress) -> dict[str, object]:
    """As a row holds it, which the tenant is shown."""
    return progress.model_dump(mode="json") | {"stage": for_tenants(progress.stage)}


def _told(data: Mapping[str, float | str | int | None]) -> dict[str, float | str | int | None]:
    return {name: for_tenants(value) if isinstance(value, str) else value for name, value in data.items()}


def keep_checkpoint(session: Session, job: Job, *, record: CheckpointRecord, now: float) -> None:
    """One checkpoint per step: an attempt that repeats a step replaces it."""
    row = checkpoint_at(session, job.id, record.step)
    if row is None:
        row = JobCheckpoint(id=new_id("ftckpt_"), job_id=job.id, step=record.step, created_at=int(now))
        session.add(row)
    row.record = record.model_dump(mode="json")
    job.sweep_at = now

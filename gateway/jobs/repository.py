"""Queries on jobs. What is about to be changed is read with a row lock."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from fastapi import Path
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

from gateway.errors import NotFound
from gateway.tables.jobs import Job, JobCheckpoint
from policies.contract.store import ArtifactStore
from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import WorkKind


class AttemptProof(NamedTuple):
    """What a call about an attempt has to show: its token, a credential of its kind, the key of the claiming worker."""

    token: str
    kind: WorkKind
    worker_key_hash: str

    def matches(self) -> ColumnElement[bool]:
        """The job that was last claimed so, if nobody took it over since."""
        return and_(
            Job.attempt_token == self.token,
            Job.attempt_kind == self.kind,
            Job.worker_key_hash == self.worker_key_hash,
        )


JobId = Annotated[str, Path(max_length=64)]
"""In a URL."""


def tenants_job(session: Session, tenant_id: str, job_id: str) -> Job:
    """The tenant's own job; another tenant's is as unknown as one that never was."""
    return _found(session.scalar(select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id)), job_id)


def lock_tenants_job(session: Session, tenant_id: str, job_id: str) -> Job:
    statement = select(Job).where(Job.id == job_id, Job.tenant_id == tenant_id).with_for_update()
    return _found(session.scalar(statement), job_id)


def lock_job(session: Session, job_id: str) -> Job | None:
    return session.scalar(select(Job).where(Job.id == job_id).with_for_update())


def lock_attempt(session: Session, proof: AttemptProof) -> Job | None:
    return session.scalar(select(Job).where(proof.matches()).with_for_update())


def checkpoint_at(session: Session, job_id: str, step: int) -> JobCheckpoint | None:
    return session.scalar(select(JobCheckpoint).where(JobCheckpoint.job_id == job_id, JobCheckpoint.step == step))


def last_checkpoint(session: Session, store: ArtifactStore, job_id: str) -> CheckpointRecord | None:
    """The newest checkpoint whose state is really in the store, with every file."""
    rows = select(JobCheckpoint).where(JobCheckpoint.job_id == job_id).order_by(JobCheckpoint.step.desc())
    records = (CheckpointRecord.model_validate(row.record) for row in session.scalars(rows))
    return next((record for record in records if store.holds_tree(record.state)), None)


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise NotFound(f"No fine-tuning job {job_id!r}.", "fine_tuning_job_id", "job_not_found")
    return job

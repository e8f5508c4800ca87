"""Which of a job's artifacts are still wanted, and the sweep that deletes the others.

Everything that a job's workers wrote lies in the job's own store, so what is wanted is found from the job's rows and
records alone, and no other job can lose a byte. Records (spec, training record, reports of all candidates, decision,
manifest, events) stay as evidence; weights, states of training and samples go by the retention of the job's policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import structlog
from pydantic import ValidationError
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.event_records import move_events
from gateway.policy_catalog import policy_of
from gateway.tables.jobs import Job, JobCheckpoint, SecondEvaluation
from gateway.tables.models import Model
from gateway.tables.statistics import Sweep
from policies.contract.artifacts import Digest
from policies.contract.evaluation import EvalReport
from policies.contract.jobs import Phase
from policies.contract.store import ArtifactStore, StoredArtifact
from policies.contract.training import CheckpointRecord, TrainingRecord
from policies.errors import TunegateError

log = structlog.get_logger(__name__)

KEPT_STATES = 2
"""States of a running job that it could resume from; one may be damaged."""
DAY_SECONDS = 86400.0
GRACE_SECONDS = 3600.0
"""What nothing refers to stays this long after the job's end, so that nobody's last read is cut off."""
CLAIM_SECONDS = 600.0
"""A sweep that died is tried again after this long."""
BATCH = 20


class Plan(NamedTuple):
    """What a sweep deletes: all but `kept`; or `dropped` alone, while workers may still write."""

    kept: frozenset[Digest]
    dropped: frozenset[Digest] | None
    next_at: float | None
    """When something else of the job may go."""

    def spares(self, digest: Digest) -> bool:
        return digest in self.kept if self.dropped is None else digest not in self.dropped


def sweep_due_jobs(services: Services) -> int:
    """Sweep the jobs of which something may go; for a periodic task. Gives the number of bytes.

    A job with a record that can't be read loses nothing, is tried again later, and holds up no other.
    """
    n_bytes, until = 0, services.clock() + CLAIM_SECONDS
    for job_id in _claim_due(services):
        try:
            n_bytes += sweep_job(services, job_id, until=until)
        except (TunegateError, ValidationError) as error:
            log.error("sweep_failed", job_id=job_id, error=str(error))
    return n_bytes


def sweep_job(services: Services, job_id: str, *, until: float) -> int:
    """Delete what nobody wants any more of one job, before others may claim it again; gives the number of bytes."""
    look_at = _sweep_events(services, job_id)
    with services.database.transaction() as session:
        job = session.get_one(Job, job_id)
        claimed = job.sweep_at
        plan = _plan(session, services, job)
    store = services.stores.of_job(job_id)
    sizes = [each.size_bytes for each in _delete(store, plan, lambda: services.clock() < until)]
    is_cut_off = services.clock() >= until
    times = [time for time in (plan.next_at, look_at, until if is_cut_off else None) if time is not None]
    next_at = min(times, default=None)
    with services.database.transaction() as session:
        if sizes:
            session.add(Sweep(n_artifacts=len(sizes), n_bytes=sum(sizes), at=services.clock()))
        # unless the job changed meanwhile, and asks for a sweep of its own
        session.execute(update(Job).where(Job.id == job_id, Job.sweep_at == claimed).values(sweep_at=next_at))
    return sum(sizes)


def _claim_due(services: Services) -> list[str]:
    now = services.clock()
    with services.database.transaction() as session:
        due = select(Job).where(Job.sweep_at <= now).order_by(Job.sweep_at).limit(BATCH)
        jobs = list(session.scalars(due.with_for_update(skip_locked=True)))
        for job in jobs:
            job.sweep_at = now + CLAIM_SECONDS
        return [job.id for job in jobs]


def _sweep_events(services: Services, job_id: str) -> float | None:
    """Move the job's events into their record when it is time; gives when to look at them again."""
    with services.database.reading() as session:
        job = session.get_one(Job, job_id)
    if not Phase(job.phase).is_terminal:
        return None
    days = policy_of(services.stores.shared, job.policy_digest).spec.retention.events_days
    due_at = job.phase_since + max(GRACE_SECONDS, days * DAY_SECONDS)
    if services.clock() < due_at:
        return due_at
    return None if move_events(services, job_id) else services.clock() + CLAIM_SECONDS


def _delete(store: ArtifactStore, plan: Plan, go_on: Callable[[], bool]) -> Iterator[StoredArtifact]:
    for artifact in list(store.stored()):
        if not go_on():
            return
        if not plan.spares(artifact.digest):
            store.delete(artifact.digest)
            yield artifact


def _plan(session: Session, services: Services, job: Job) -> Plan:
    store = services.stores.of_job(job.id)
    rows = session.scalars(select(JobCheckpoint).where(JobCheckpoint.job_id == job.id).order_by(JobCheckpoint.step))
    checkpoints = [CheckpointRecord.model_validate(row.record) for row in rows]
    policy = policy_of(services.stores.shared, job.policy_digest)
    if not Phase(job.phase).is_terminal:
        return _plan_of_running(job, store, checkpoints, keeps_adapters=policy.spec.n_candidates > 1)
    now, ended = services.clock(), job.phase_since
    if now < ended + GRACE_SECONDS:
        return Plan(frozenset(), frozenset(), ended + GRACE_SECONDS)
    left = _left_behind(session, job, store, checkpoints)
    kept, later = set(left.evidence), []
    for kind, days in policy.spec.retention.days_by_kind().items():
        expires_at = ended + days * DAY_SECONDS
        if left.by_kind[kind] and now < expires_at:
            kept |= left.by_kind[kind]
            later.append(expires_at)
    return Plan(frozenset(kept), None, min(later, default=None))


class _LeftBehind(NamedTuple):
    """The artifacts of a job that ended, files of folders included."""

    evidence: set[Digest]
    """Records, and the adapter of a released model that its tenant has not deleted: kept for good."""
    by_kind: dict[str, set[Digest]]
    """Kept for as long as the policy's retention says."""


def _left_behind(
    session: Session, job: Job, store: ArtifactStore, checkpoints: Sequence[CheckpointRecord]
) -> _LeftBehind:
    model = session.scalar(select(Model).where(Model.job_id == job.id))
    records = {job.spec_digest, job.training_record_digest, job.report_digest, job.decision_digest, job.events_digest}
    records |= {job.screening_digest, *({model.manifest_digest} if model else ())}
    second = session.scalar(select(SecondEvaluation).where(SecondEvaluation.job_id == job.id))
    records |= {second.decision_digest} if second else set()
    released = [model.adapter_digest] if model and model.deleted_at is None else []
    adapters = [job.adapter_digest] if job.adapter_digest and model is None else []
    if job.training_record_digest is not None:
        training = store.get_record(job.training_record_digest, TrainingRecord)
        records.add(training.screening)
        adapters += [digest for item in training.evidence for digest in item.digests.values()]
    reports = _reports(job.report_digest, store) | _reports(second.report_digest if second else None, store)
    return _LeftBehind(
        evidence={digest for digest in records if digest is not None} | reports.keys() | _whole(store, released),
        by_kind={
            "checkpoints": _whole(store, _folders(checkpoints)),
            "unreleased_adapters": _whole(store, adapters),
            "samples": {report.samples for report in reports.values() if report.samples},
        },
    )


def _reports(digest: Digest | None, store: ArtifactStore) -> dict[Digest, EvalReport]:
    """By digest: the report that a verdict is about, and those of other candidates that it names."""
    if digest is None:
        return {}
    report = store.get_record(digest, EvalReport)
    others = [candidate.report for candidate in report.candidates if candidate.report is not None]
    found = {digest: store.get_record(digest, EvalReport) for digest in others if store.exists(digest)}
    return found | {digest: report}


def _plan_of_running(
    job: Job, store: ArtifactStore, checkpoints: Sequence[CheckpointRecord], *, keeps_adapters: bool
) -> Plan:
    """Old states go while the job runs. An adapter that may come to be released stays, and so does what is unknown."""
    old, new = checkpoints[:-KEPT_STATES], checkpoints[-KEPT_STATES:]
    wanted = _folders(new) + [checkpoint.adapter for checkpoint in old if keeps_adapters]
    wanted += [] if job.adapter_digest is None else [job.adapter_digest]
    return Plan(frozenset(), frozenset(_whole(store, _folders(old)) - _whole(store, wanted)), None)


def _folders(checkpoints: Sequence[CheckpointRecord]) -> list[Digest]:
    return [digest for checkpoint in checkpoints for digest in (checkpoint.state, checkpoint.adapter)]


def _whole(store: ArtifactStore, folders: Iterable[Digest]) -> set[Digest]:
    """Folders and the files in them. A manifest that can't be read stops the sweep; one that is gone has no files."""
    found = set[Digest]()
    for folder in folders:
        if store.exists(folder):
            found |= {folder, *store.tree(folder).files.values()}
    return found

"""Checks a job's files before any accelerator is asked for, then lets the job queue.

Reading the files takes long, so it happens between two short transactions: one that takes the job up, one that settles
it. The row's lease keeps a second validator away; should one get through, both find the same and the first one counts.
"""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.files.dataset.report import DatasetLimits, DatasetReading, DatasetReport
from gateway.files.dataset.tokens import counter_for
from gateway.files.dataset.validate import read_dataset
from gateway.jobs.earlier_attempts import number_attempt
from gateway.jobs.events import Level, record_event
from gateway.jobs.lifecycle import Failure, drop_lease, fail, move
from gateway.jobs.records import RecordError, spec_to_work_by
from gateway.jobs.repository import lock_job
from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec, Phase
from policies.datasets.fingerprint import DatasetFingerprint, FingerprintSketch
from policies.datasets.problems import DatasetProblem

LEASE_SECONDS = 300.0
"""A validator that is silent for this long is taken for dead."""
ERRORS_IN_MESSAGE = 3
MIN_VALIDATION_ROWS = 1


class Inspection(NamedTuple):
    """What was found in the files; `failure` is None where the job may queue."""

    failure: Failure | None
    problems: tuple[DatasetProblem, ...]
    training_rows: int
    fingerprint: DatasetFingerprint | None = None
    """Of the training file; None where the job may not queue."""


def validate_job_files(services: Services, job_id: str) -> None:
    """Validate and settle one job; does nothing where another does or did it."""
    with services.database.transaction() as session:
        spec = _take_up(session, services, job_id)
    if spec is None:
        return
    inspection = inspect_files(services, spec)
    with services.database.transaction() as session:
        job = lock_job(session, job_id)
        if job is not None and job.phase == Phase.VALIDATING:
            _settle(session, services, job=job, inspection=inspection)


def _take_up(session: Session, services: Services, job_id: str) -> JobSpec | None:
    job, now = lock_job(session, job_id), services.clock()
    if job is None or job.phase != Phase.VALIDATING or (job.lease_until is not None and job.lease_until >= now):
        return None
    if job.attempts >= services.settings.max_attempts:
        message = f"The files could not be validated in {job.attempts} attempts."
        fail(session, job, Failure("attempts_exhausted", message), now)
        return None
    try:
        spec = spec_to_work_by(job)
    except RecordError as refusal:
        fail(session, job, Failure(refusal.code, refusal.message), now)
        return None
    job.attempts += 1
    job.lease_until = now + LEASE_SECONDS
    return spec


def inspect_files(services: Services, spec: JobSpec) -> Inspection:
    """What keeps the job from queueing, or what it queues with. Each file is read once."""
    sketch = FingerprintSketch()
    training = _read(services, spec, digest=spec.training_file, sketch=sketch)
    if not training.report.valid:
        return _invalid("training_file", training.report)
    warnings = training.report.warnings
    if spec.validation_file is not None:
        validation = _read(services, spec, digest=spec.validation_file)
        if not validation.report.valid:
            return _invalid("validation_file", validation.report)
        if shared := shared_rows(training, validation):
            return _overlapping(shared, training.report)
        warnings += validation.report.warnings
    return Inspection(None, warnings, training.report.rows, sketch.fingerprint())


def _read(
    services: Services, spec: JobSpec, *, digest: Digest, sketch: FingerprintSketch | None = None
) -> DatasetReading:
    counter, settings = counter_for(spec.base_model.uri), services.settings
    limits = DatasetLimits(
        max_rows=settings.max_training_rows,
        max_reported=settings.max_reported_errors,
        max_row_tokens=spec.base_model.max_sequence_tokens,
        control_tokens=counter.control_tokens,
        method=spec.method.type,
    )
    if digest == spec.validation_file:
        limits = limits._replace(min_rows=MIN_VALIDATION_ROWS)
    with services.stores.files.open(digest) as stream:
        return read_dataset(stream, limits, counter, sketch=sketch)


def _invalid(param: str, report: DatasetReport) -> Inspection:
    first = "; ".join(str(problem) for problem in report.errors[:ERRORS_IN_MESSAGE])
    more = report.n_errors - min(report.n_errors, ERRORS_IN_MESSAGE)
    message = f"{param}: {report.n_errors} errors. {first}" + (
        f"; and {more} more, in the job's events" if more else ""
    )
    return Inspection(Failure(f"invalid_{param}", message, param), report.errors, report.rows)


def _overlapping(lines: list[int], training: DatasetReport) -> Inspection:
    first = ", ".join(map(str, lines[:10]))
    message = f"validation_file: {len(lines)} rows are in the training file as well, in lines {first}; remove them."
    return Inspection(Failure("invalid_validation_file", message, "validation_file"), (), training.rows)


def shared_rows(training: DatasetReading, validation: DatasetReading) -> list[int]:
    """Lines of the validation file whose row is in the training file too, however each is written down."""
    trained_on = {content for _, content in training.row_hashes}
    return [line for line, content in validation.row_hashes if content in trained_on]


def _settle(session: Session, services: Services, *, job: Job, inspection: Inspection) -> None:
    now = services.clock()
    drop_lease(job, keep_token=False)
    job.attempts = 0
    level: Level = "warn" if inspection.failure is None else "error"
    for problem in inspection.problems:
        record_event(session, job, str(problem), now=now, level=level, data=problem.model_dump(mode="json"))
    if inspection.failure is not None:
        fail(session, job, inspection.failure, now)
        return
    assert inspection.fingerprint is not None
    spec = JobSpec.model_validate(job.spec)
    try:
        resolved = spec.hyperparameters.resolve(inspection.training_rows, spec.base_model.base_learning_rate)
    except ValidationError as error:
        message = f"Nothing can be trained with these hyperparameters: {error.errors()[0]['msg']}."
        fail(session, job, Failure("unusable_hyperparameters", message, "hyperparameters"), now)
        return
    number_attempt(session, services, job=job, fingerprint=inspection.fingerprint, now=now)
    job.hyperparameters = resolved.model_dump(mode="json")
    move(session, job, Phase.QUEUED, now)
    record_event(session, job, "Files validated, moving job to queued state", now=now)

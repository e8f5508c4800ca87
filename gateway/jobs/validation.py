"""Checks a job's files before any accelerator is asked for, then lets the job queue.

Reading the files takes long, so it happens between two short transactions, in a child process: one takes the job up,
one settles it. Meanwhile the row's lease, which is extended as long as the child works, keeps other validators away; a
validator that lost its lease, or whose job was cancelled, ends its child. A child that crashes is tried again, as often
as a job has attempts, unless it crashes the same way twice in a row; a file that takes too much time or memory fails
its job at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog
from pydantic import ValidationError
from sqlalchemy import CursorResult, update
from sqlalchemy.orm import Session

from gateway.base_models.texts import open_text
from gateway.dependencies import Services
from gateway.files.dataset.errors import InspectionCrashed, InspectionGivenUp, InspectionTooLarge, InspectionTooSlow
from gateway.files.dataset.inspection import InspectionAnswer, InspectionTask
from gateway.files.dataset.report import DatasetLimits, DatasetReport
from gateway.files.dataset.sandbox import ChildLimits, GoOn, Source, inspect_in_child
from gateway.jobs.earlier_attempts import number_attempt, refused_files
from gateway.jobs.events import Level, add_event, record_event
from gateway.jobs.fingerprints import fingerprint_key
from gateway.jobs.lifecycle import Failure, drop_lease, fail, move, repeated_failure
from gateway.jobs.records import RecordError, spec_to_work_by
from gateway.jobs.repository import lock_job
from gateway.policy_catalog import policy_of
from gateway.screening.file_report import (
    REFUSED_FILES,
    refused_facts,
    report_on,
    screening_event,
    screening_task,
    with_guard,
)
from gateway.screening.release_hold import UNSAFE_FILE_CODE, told
from gateway.tables.jobs import Job
from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec, Phase
from policies.contract.screening import ScreeningFacts
from policies.datasets.fingerprint import DatasetFingerprint
from policies.datasets.problems import DatasetProblem
from policies.documents.schema import ReleasePolicy
from policies.screening.judging import ScreenedFile, judge_of

log = structlog.get_logger(__name__)

ERRORS_IN_MESSAGE = 3
MIN_VALIDATION_ROWS = 1


Inspect = Callable[[InspectionTask, list[Source], GoOn], InspectionAnswer]
"""Reads files; `gateway.files.dataset.sandbox` says what it raises."""


class Validation(NamedTuple):
    """A job that this process has taken up."""

    spec: JobSpec
    attempt: int
    """Tells this validator from one that takes the job over."""
    fingerprint_key: str
    policy: ReleasePolicy


class Finding(NamedTuple):
    """What was found in the files; `failure` is None where the job may queue."""

    failure: Failure | None
    problems: tuple[DatasetProblem, ...]
    training_rows: int
    fingerprint: DatasetFingerprint | None = None
    """Of the training file; None where the job may not queue."""
    training_tokens: int = 0
    """Of one epoch."""
    screened: ScreeningFacts | None = None
    """Of the training file; None where the policy screens nothing."""


def take_up(session: Session, services: Services, job: Job) -> Validation | None:
    """Lease the job, which the caller has locked; None where it is not to be had, or has just failed."""
    now = services.clock()
    if job.phase != Phase.VALIDATING or (job.lease_until is not None and job.lease_until >= now):
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
    job.lease_until = now + services.settings.lease_seconds
    policy = policy_of(services.stores.shared, job.policy_digest)
    return Validation(spec, job.attempts, fingerprint_key(session).hex(), policy)


def carry_out(services: Services, validation: Validation, *, inspect: Inspect | None = None) -> None:
    """Read the files of a job that was taken up, and settle it."""
    read = inspect or partial(_inspect_apart, services)
    try:
        finding = _find(services, validation, read)
    except InspectionGivenUp:
        return
    with services.database.transaction() as session:
        job = lock_job(session, validation.spec.job_id)
        if job is None or job.phase != Phase.VALIDATING or job.attempts != validation.attempt:
            return
        if isinstance(finding, InspectionCrashed):
            _settle_crash(session, job, finding, now=services.clock())
        else:
            _settle(session, services, job=job, finding=finding)


def _inspect_apart(services: Services, task: InspectionTask, sources: list[Source], go_on: GoOn) -> InspectionAnswer:
    settings = services.settings
    cpu_seconds = settings.validation_cpu_seconds + (settings.screening_cpu_seconds if task.screening else 0)
    limits = ChildLimits(cpu_seconds, settings.validation_memory_bytes, look_seconds=settings.heartbeat_seconds)
    return inspect_in_child(task, sources, limits=limits, go_on=go_on)


def _find(services: Services, validation: Validation, inspect: Inspect) -> Finding | InspectionCrashed:
    spec = validation.spec
    sources: list[Source] = [partial(services.stores.files.open, digest) for digest in _files(spec)]
    if spec.base_text is not None:
        sources.insert(0, partial(open_text, services.stores.base_texts, spec.base_text))
    task = InspectionTask(
        limits=tuple(_limits(services, spec, digest) for digest in _files(spec)),
        base_model=None if spec.base_text is None else spec.base_model.name,
        date=spec.base_model.date,
        fingerprint_key=validation.fingerprint_key,
        screening=screening_task(validation.policy, services.settings),
    )
    go_on = partial(_extend_lease, services, validation)
    try:
        answer = inspect(task, sources, go_on)
    except (InspectionTooSlow, InspectionTooLarge) as error:
        return Finding(Failure(error.code, error.message, "training_file"), (), 0)
    except InspectionCrashed as error:
        log.error("validation_crashed", job_id=spec.job_id, attempt=validation.attempt, error=error.message)
        return error
    finding = _judged(answer)
    if answer.screening is None or finding.failure is not None:
        return finding
    rules, settings = validation.policy.spec.screening, services.settings
    return finding._replace(screened=with_guard(rules, answer.screening, answer.sample, settings=settings, go_on=go_on))


def _files(spec: JobSpec) -> list[Digest]:
    return [spec.training_file, *([] if spec.validation_file is None else [spec.validation_file])]


def _limits(services: Services, spec: JobSpec, digest: Digest) -> DatasetLimits:
    limits = DatasetLimits(
        max_rows=services.settings.max_training_rows,
        max_reported=services.settings.max_reported_errors,
        max_row_tokens=spec.base_model.max_sequence_tokens,
        method=spec.method.type,
    )
    return limits._replace(min_rows=MIN_VALIDATION_ROWS) if digest == spec.validation_file else limits


def _extend_lease(services: Services, validation: Validation) -> bool:
    """Whether the job is still this validator's."""
    with services.database.transaction() as session:
        mine = update(Job).where(Job.id == validation.spec.job_id, Job.phase == Phase.VALIDATING)
        result = session.execute(
            mine.where(Job.attempts == validation.attempt).values(
                lease_until=services.clock() + services.settings.lease_seconds
            )
        )
        assert isinstance(result, CursorResult)
        return result.rowcount == 1


def _judged(answer: InspectionAnswer) -> Finding:
    """What keeps the job from queueing, or what it queues with."""
    training = answer.reports[0]
    for param, report in zip(("training_file", "validation_file"), answer.reports, strict=False):
        if not report.valid:
            return _invalid(param, report)
    if answer.shared.count:
        return _overlapping(answer, training)
    warnings = tuple(problem for report in answer.reports for problem in report.warnings) + _asked_again(answer)
    return Finding(None, warnings, training.rows, answer.fingerprint, training.tokens.total)


def _asked_again(answer: InspectionAnswer) -> tuple[DatasetProblem, ...]:
    found = answer.same_questions
    if not found.count:
        return ()
    first = found.first_lines[0]
    return (DatasetProblem.of("question_trained", first, "messages", count=found.count, first=first),)


def _invalid(param: str, report: DatasetReport) -> Finding:
    first = "; ".join(str(problem) for problem in report.errors[:ERRORS_IN_MESSAGE])
    more = report.n_errors - min(report.n_errors, ERRORS_IN_MESSAGE)
    message = f"{param}: {report.n_errors} errors. {first}" + (
        f"; and {more} more, in the job's events" if more else ""
    )
    return Finding(Failure(f"invalid_{param}", message, param), report.errors, report.rows)


def _overlapping(answer: InspectionAnswer, training: DatasetReport) -> Finding:
    first = ", ".join(map(str, answer.shared.first_lines))
    message = (
        f"validation_file: {answer.shared.count} rows are in the training file as well, in lines {first}; remove them."
    )
    return Finding(Failure("invalid_validation_file", message, "validation_file"), (), training.rows)


def _is_unsafe(session: Session, services: Services, *, job: Job, finding: Finding) -> bool:
    """Keep and announce what screening found; fail the job where its policy blocks such a file."""
    policy = policy_of(services.stores.shared, job.policy_digest)
    rules = policy.spec.screening
    if not rules:
        return False
    now, facts = services.clock(), finding.screened or ScreeningFacts(rows=finding.training_rows)
    if any(rule.name == REFUSED_FILES for rule in rules):
        assert finding.fingerprint is not None
        compared = refused_files(session, services, job=job, fingerprint=finding.fingerprint)
        facts = facts.joined(refused_facts(*compared))
    file = ScreenedFile(job.training_file, JobSpec.model_validate(job.spec).training_file)
    report = report_on(file, facts, judge_of(policy))
    job.screening_digest = services.stores.of_job(job.id).put_record(report)
    add_event(session, job, screening_event(report), now=now)
    if report.verdict == "block":
        message = f"The job failed due to an unsafe training file: {told(report)}"
        fail(session, job, Failure(UNSAFE_FILE_CODE, message, "training_file"), now)
    return report.verdict == "block"


def _settle_crash(session: Session, job: Job, crash: InspectionCrashed, *, now: float) -> None:
    """The job waits for its next attempt, or ends where that would crash as well."""
    drop_lease(job, keep_token=False)
    is_repeated = crash.signature is not None and crash.signature == job.crash_signature
    job.crash_signature = crash.signature
    if is_repeated:
        fail(session, job, repeated_failure(job), now)


def _settle(session: Session, services: Services, *, job: Job, finding: Finding) -> None:
    now = services.clock()
    drop_lease(job, keep_token=False)
    job.attempts, job.crash_signature = 0, None
    level: Level = "warn" if finding.failure is None else "error"
    for problem in finding.problems:
        record_event(session, job, str(problem), now=now, level=level, data=problem.model_dump(mode="json"))
    if finding.failure is not None:
        fail(session, job, finding.failure, now)
        return
    assert finding.fingerprint is not None
    if _is_unsafe(session, services, job=job, finding=finding):
        return
    spec = JobSpec.model_validate(job.spec)
    try:
        resolved = spec.hyperparameters.resolve(finding.training_rows, spec.base_model.base_learning_rate)
    except ValidationError as error:
        message = f"Nothing can be trained with these hyperparameters: {error.errors()[0]['msg']}."
        fail(session, job, Failure("unusable_hyperparameters", message, "hyperparameters"), now)
        return
    tokens, limit = finding.training_tokens * resolved.n_epochs, services.settings.job_tokens
    if tokens > limit:
        message = f"The job would train on {tokens} tokens, {limit} are allowed; use fewer rows or epochs."
        fail(session, job, Failure("token_limit_exceeded", message, "training_file"), now)
        return
    number_attempt(session, services, job=job, fingerprint=finding.fingerprint, now=now)
    job.hyperparameters = resolved.model_dump(mode="json")
    move(session, job, Phase.QUEUED, now)
    record_event(session, job, "Files validated, moving job to queued state", now=now)

"""The training record of a job: held against the spec, its evidence demanded, its adapter looked for."""

from __future__ import annotations

import csv
import io

from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.jobs.events import record_event
from gateway.jobs.lifecycle import Failure, fail, move
from gateway.jobs.records import RecordError, load_record, spec_to_work_by
from gateway.kit.ids import new_id
from gateway.policy_catalog import policy_of
from gateway.screening.release_hold import UNSAFE_FILE_CODE, told
from gateway.tables.files import File
from gateway.tables.jobs import Job
from gateway.tenants.quotas import count_stored
from gateway.workers.model_screening import extend_report
from gateway.workers.worker_events import keep_checkpoint
from policies.contract.adapter_files import require_adapter
from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec, Phase
from policies.contract.screening import ScreeningReport
from policies.contract.store import ArtifactStore
from policies.contract.training import DefenseEvidence, TrainingRecord, release_candidates
from policies.documents.schema import ReleasePolicy
from policies.errors import ArtifactMissingError, IntegrityError
from policies.report.disclosure import told_evidence

RESULT_PURPOSE = "fine-tune-results"
FORMULA_STARTS = ("=", "+", "-", "@")


def accept_training(session: Session, services: Services, *, job: Job, record_digest: Digest | None) -> None:
    """Keep the record and let the adapter be evaluated, or fail the job with what is wrong with the record."""
    now, store = services.clock(), services.stores.of_job(job.id)
    try:
        record = load_record(store, record_digest, TrainingRecord)
        check_training(record, job=job, store=store, policy=policy_of(services.stores.shared, job.policy_digest))
        report = _screened(session, services, job=job, record=record)
    except RecordError as refusal:
        fail(session, job, Failure(refusal.code, refusal.message), now)
        return
    if report is not None and report.verdict == "block":  # the trainer should have seen it before the first step
        message = f"The job failed due to an unsafe training file: {told(report)}"
        fail(session, job, Failure(UNSAFE_FILE_CODE, message, "training_file"), now)
        return
    job.training_record_digest = record.digest
    job.adapter_digest = record.adapter
    job.trained_tokens = record.trained_tokens
    job.attempts, job.crash_signature = 0, None
    for checkpoint in record.checkpoints:
        keep_checkpoint(session, job, record=checkpoint, now=now)
    job.result_file = _keep_result_file(session, services, job=job, record=record).id
    record_event(session, job, f"Training finished after {record.total_steps} steps", now=now)
    # A pause that came after the last step holds the job before its evaluation.
    move(session, job, Phase.PAUSED if job.phase == Phase.PAUSING else Phase.AWAITING_EVALUATION, now)


def _screened(session: Session, services: Services, *, job: Job, record: TrainingRecord) -> ScreeningReport | None:
    if record.screening is None:
        return None
    return extend_report(session, services, job=job, screening=record.screening, base_model=record.base_model)


def check_training(record: TrainingRecord, *, job: Job, store: ArtifactStore, policy: ReleasePolicy) -> None:
    """Raises `RecordError` unless the record answers this job's spec with an adapter and with evidence."""
    if record.spec != job.spec_digest:
        raise RecordError("record_mismatch", f"The training record belongs to spec {record.spec}, not to this job's.")
    spec = spec_to_work_by(job)
    _require_start(record, spec)
    for candidate in release_candidates(record, policy.spec.n_candidates):
        _require_adapter(store, candidate.adapter, spec)
    for defense in spec.defenses:
        _require_evidence(defense.name, [item for item in record.evidence if item.name == defense.name], policy)


def _require_start(record: TrainingRecord, spec: JobSpec) -> None:
    """A job that continues a model shows that its training began with that adapter, on the same base model."""
    start, lineage = record.start, spec.continues
    if lineage is None and start is None:
        return
    if lineage is None or start is None or not start.loaded or start.max_abs_logit_difference <= 0:
        message = "The training record does not show that training began where the job says."
        raise RecordError("record_mismatch", message)
    shown = (start.adapter, start.base_model, record.base_model)
    if shown != (lineage.parent.adapter, lineage.base_model, lineage.base_model):
        message = (
            f"Training began at adapter {start.adapter} on {start.base_model}, not at that of the continued model."
        )
        raise RecordError("record_mismatch", message)


def _require_adapter(store: ArtifactStore, adapter: Digest, spec: JobSpec) -> None:
    try:
        require_adapter(store, adapter, spec.base_model, may_be_earlier=spec.is_of_earlier_version)
    except ArtifactMissingError as error:
        raise RecordError("artifact_missing", f"The adapter {adapter} is not in the artifact store.") from error
    except IntegrityError as error:
        raise RecordError("integrity_error", f"The adapter {adapter} is refused: {error}") from error


def _require_evidence(name: str, evidence: list[DefenseEvidence], policy: ReleasePolicy) -> None:
    if not evidence:
        raise RecordError("defense_evidence_missing", f"Defense {name} left no evidence that it acted.")
    for item, shown in zip(evidence, told_evidence(evidence, policy), strict=True):
        if not item.acted or not any(item.figures.values()):
            message = f"Defense {name} did not act: {shown.explanation or 'the operator can see why.'}"
            raise RecordError("defense_evidence_missing", message)


def _keep_result_file(session: Session, services: Services, *, job: Job, record: TrainingRecord) -> File:
    content = training_log_csv(record).encode()
    file = File(
        id=new_id("file-"),
        tenant_id=job.tenant_id,
        filename=f"{job.id}-results.csv",
        purpose=RESULT_PURPOSE,
        size_bytes=len(content),
        digest=services.stores.files.put_bytes(content),
        status="processed",
        created_at=services.now(),
    )
    session.add(file)
    count_stored(session, file.tenant_id, file.size_bytes)
    return file


def training_log_csv(record: TrainingRecord) -> str:
    """The training log, one row a logging step; `step` first, the other columns in the order they first occur.

    Figures are numbers, but a worker chose the names: one that a spreadsheet would compute is put after an apostrophe.
    """
    columns = dict.fromkeys(["step", *(name for entry in record.log_history for name in entry)])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(_as_text(name) for name in columns)
    csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n").writerows(record.log_history)
    return text.getvalue()


def _as_text(cell: str) -> str:
    words = " ".join(cell.split())
    return f"'{words}" if words.startswith(FORMULA_STARTS) else words

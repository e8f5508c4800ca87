"""Creating a job: everything is resolved and fixed here, so that no limit can move after a result is seen.

One figure follows before the job queues, once its training file has been read: the earlier attempts (`retries`).
"""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.base_models.checks import require_checked
from gateway.base_models.evaluations import known_evaluation
from gateway.dependencies import Services
from gateway.errors import InvalidRequest
from gateway.files.repository import lock_digest
from gateway.fine_tuning.connection import require_connected
from gateway.fine_tuning.continuing import PREFIX, continued_terms
from gateway.fine_tuning.idempotency import KeyClaim, claim_key
from gateway.fine_tuning.schemas import CreateJobRequest, suffix_in_name
from gateway.fine_tuning.spec import (
    JobFiles,
    OperatorTerms,
    build_spec,
    require_supported,
    require_trainable,
    require_trainable_numbers,
)
from gateway.jobs.events import record_event
from gateway.jobs.lifecycle import enqueue
from gateway.kit.ids import new_id
from gateway.models.lineage import LineageFileGoneError, require_lineage_files
from gateway.models.service import model_name
from gateway.policy_catalog import PolicyCatalog
from gateway.tables.files import File, LineageFile
from gateway.tables.integrations import MetricsExport
from gateway.tables.jobs import Job, JobMetadata
from gateway.tables.models import MAX_NAME_LENGTH
from gateway.tenants.auth import Principal
from gateway.tenants.quotas import require_job_quota
from policies.contract.artifacts import Digest
from policies.contract.jobs import JobSpec, Phase
from policies.contract.store import ArtifactStore

SEEDS = 2**31


def create_job(
    session: Session, services: Services, *, tenant: Principal, request: CreateJobRequest, idempotency_key: str | None
) -> Job:
    """The new job, or the one that the same `Idempotency-Key` created before."""
    job_id = new_id("ftjob-")
    now = services.clock()
    if idempotency_key is not None:
        answered = claim_key(session, tenant.tenant_id, KeyClaim(idempotency_key, request, job_id, int(now)))
        if answered != job_id:
            return session.get_one(Job, answered)
    require_job_quota(session, services, tenant.tenant_id)
    require_supported(request)
    require_connected(services.settings, tenant.tenant_name, request.integrations or ())
    require_trainable_numbers(request)
    terms = _terms(session, services, tenant=tenant, model=request.model)
    files = _job_files(session, tenant.tenant_id, request=request, now=int(now))
    seed = secrets.randbelow(SEEDS) if request.seed is None else request.seed
    spec = build_spec(job_id, request, terms=terms, files=files, seed=seed)
    require_trainable(spec, terms)
    spec = _calibrated(session, spec, services=services, terms=terms)
    _require_lineage_files(session, spec, tenant_id=tenant.tenant_id, now=int(now))
    _keep_bytes(session, services.stores.files, files, lineage=spec.lineage_files)
    services.stores.shared.put_record(terms.policy)
    services.stores.of_job(job_id).put_record(spec)
    job = _job_row(tenant, request, spec=spec, now=now)
    _require_short_name(job, tenant)
    _add(session, job, request, spec=spec, now=now)
    return job


def _calibrated(session: Session, spec: JobSpec, *, services: Services, terms: OperatorTerms) -> JobSpec:
    """The spec with the calibration of its base model, where the operator has one; then it is kept as an artifact."""
    policies = services.policies
    known = known_evaluation(session, services, policies.base_model(spec.base_model.name).spec)
    if known is None:
        return spec
    record = policies.calibration(terms.policy, spec.base_model, known=known, method=spec.method)
    if record is None:
        return spec
    return spec.model_copy(update={"calibration": services.stores.shared.put_record(record)})


def _add(session: Session, job: Job, request: CreateJobRequest, *, spec: JobSpec, now: float) -> None:
    """The job with its metadata, its first events, and what is to be done about it."""
    session.add(job)
    session.flush()
    session.add_all(
        JobMetadata(job_id=job.id, tenant_id=job.tenant_id, key=key, value=value, created_at=job.created_at)
        for key, value in (request.metadata or {}).items()
    )
    session.add_all(LineageFile(job_id=job.id, digest=digest) for digest in spec.lineage_files)
    record_event(session, job, f"Created fine-tuning job: {job.id}", now=now)
    if job.suffix != request.suffix:
        record_event(session, job, f"In the model's name the suffix {request.suffix!r} is {job.suffix!r}.", now=now)
    if spec.continues is not None:
        message = f"Continuing {spec.continues.parent.model}; the safety check compares with {spec.base_model.name}"
        record_event(session, job, message, now=now)
    record_event(session, job, f"Validating training file: {job.training_file}", now=now)
    enqueue(session, job, now)
    if job.integrations:
        session.add(MetricsExport(job_id=job.id, due_at=now))


def _require_short_name(job: Job, tenant: Principal) -> None:
    """The adapter's name is known by now; after the training would be a bad time to find that it has no room."""
    name = model_name(job, tenant.tenant_name)
    if len(name) > MAX_NAME_LENGTH:
        message = f"suffix: the model would be called {name}, which has more than {MAX_NAME_LENGTH} characters."
        raise InvalidRequest(message, "suffix", "model_name_too_long")


def _terms(session: Session, services: Services, *, tenant: Principal, model: str) -> OperatorTerms:
    if model.startswith(PREFIX) and model not in services.policies.base_models:
        return continued_terms(session, services, tenant=tenant, model=model)
    return operator_terms(session, services.policies, tenant=tenant, model=model)


def _require_lineage_files(session: Session, spec: JobSpec, *, tenant_id: str, now: int) -> None:
    try:
        require_lineage_files(session, spec, tenant_id=tenant_id, now=now)
    except LineageFileGoneError as error:
        raise InvalidRequest(error.message, "model", error.code) from error


def operator_terms(session: Session, policies: PolicyCatalog, *, tenant: Principal, model: str) -> OperatorTerms:
    if model not in policies.base_models:
        known = ", ".join(sorted(policies.base_models))
        raise InvalidRequest(
            f"No base model {model!r} can be fine-tuned here; known: {known}.", "model", "model_not_found"
        )
    base_model = policies.base_model(model)
    base_text = require_checked(session, base_model.spec)
    return OperatorTerms(policies.release_policy(tenant.policy), base_model, base_text)


def _job_row(tenant: Principal, request: CreateJobRequest, *, spec: JobSpec, now: float) -> Job:
    return Job(
        id=spec.job_id,
        tenant_id=tenant.tenant_id,
        key_id=tenant.key_id,
        created_at=int(now),
        phase=Phase.VALIDATING.value,
        phase_since=now,
        model=spec.base_model.name,
        training_file=request.training_file,
        validation_file=request.validation_file,
        suffix=request.suffix and suffix_in_name(request.suffix),
        seed=spec.seed,
        hyperparameters=spec.hyperparameters.model_dump(mode="json"),
        user_metadata=request.metadata,
        integrations=[each.model_dump(mode="json") for each in request.integrations or ()] or None,
        spec=spec.model_dump(mode="json"),
        spec_digest=spec.digest,
        policy_digest=spec.policy,
        attempts=0,
    )


def _job_files(session: Session, tenant_id: str, *, request: CreateJobRequest, now: int) -> JobFiles:
    training = _usable_file(session, tenant_id, file_id=request.training_file, param="training_file", now=now)
    if request.validation_file is None:
        return JobFiles(training, None)
    validation = _usable_file(session, tenant_id, file_id=request.validation_file, param="validation_file", now=now)
    if validation.digest == training.digest:
        message = "validation_file has the same content as training_file; hold out rows that are not trained on."
        raise InvalidRequest(message, "validation_file", "validation_file_is_training_file")
    return JobFiles(training, validation)


def _keep_bytes(session: Session, store: ArtifactStore, files: JobFiles, *, lineage: tuple[Digest, ...]) -> None:
    """A file may be deleted while its job is created: from here on its bytes are needed, or they are gone already.

    Locked in one order, so that two jobs of the same files don't wait for each other.
    """
    own = {f"{param}_file": file for param, file in files._asdict().items() if file is not None}
    for digest in sorted({*lineage, *(file.digest for file in own.values())}):
        lock_digest(session, digest)
    for param, file in own.items():
        if not store.exists(file.digest):
            raise InvalidRequest(f"{param}: {file.id} was deleted just now.", param, "file_not_found")
    if not all(store.exists(digest) for digest in lineage):
        message = "A training file of the lineage was deleted just now; upload the same file again."
        raise InvalidRequest(message, "model", LineageFileGoneError.code)


def _usable_file(session: Session, tenant_id: str, *, file_id: str, param: str, now: int) -> File:
    file = session.scalar(
        select(File).where(File.id == file_id, File.tenant_id == tenant_id, File.deleted_at.is_(None))
    )
    if file is None or (file.expires_at is not None and file.expires_at <= now):
        raise InvalidRequest(f"{param}: no file {file_id!r}; upload it first.", param, "file_not_found")
    if file.purpose != "fine-tune":
        message = f"{param}: {file_id} was uploaded for {file.purpose!r}; upload it with purpose 'fine-tune'."
        raise InvalidRequest(message, param, "wrong_file_purpose")
    return file

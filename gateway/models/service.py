"""Releasing an adapter under a name: the only way there is."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.models.confirmation import require_confirmation
from gateway.models.lineage import require_unbroken
from gateway.models.repository import tenants_model
from gateway.screening.release_hold import REASON, release_hold
from gateway.tables.jobs import Job
from gateway.tables.models import Model
from gateway.tables.tenancy import Tenant
from policies.contract.adapter_files import require_adapter
from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import EvalReport
from policies.contract.jobs import JobSpec
from policies.contract.release import AdapterManifest, Confirmation, Decision, GateDecision
from policies.contract.store import ArtifactStore, ArtifactStores
from policies.contract.training import TrainingRecord, release_candidates
from policies.documents.schema import ReleasePolicy
from policies.errors import ArtifactMissingError, IntegrityError

R = TypeVar("R", bound=Record)


def release_adapter(session: Session, services: Services, *, job: Job, decision: GateDecision) -> Model:
    """Give the job's adapter its name. The one function that writes `Job.fine_tuned_model`.

    Report and training record are read from the store by the digests that the job keeps, so what is checked here is
    what was stored, not what a caller says.

    Raises:
        IntegrityError: unless the decision is `release` and every digest of job, spec, training record, report and
            decision names the same adapter, base model, policy and spec, as many evaluators as the policy demands
            found so, screening lets the training file pass, and the model that the job continues from is still
            released.
    """
    store = services.stores.of_job(job.id)
    training = _record(store, job.training_record_digest, TrainingRecord)
    report = _record(store, job.report_digest, EvalReport)
    _require_release(job, decision)
    _require_agreement(job, decision, training=training, report=report)
    policy = _record(services.stores.shared, job.policy_digest, ReleasePolicy)
    _require_candidate(job, decision, training=training, limit=policy.spec.n_candidates)
    if (hold := release_hold(store, job, policy)) is not None:
        raise IntegrityError(f"job {job.id}: {hold}", REASON)
    spec = JobSpec.model_validate(job.spec)
    require_adapter(store, decision.adapter, spec.base_model, may_be_earlier=spec.is_of_earlier_version)
    require_unbroken(session, spec, tenant_id=job.tenant_id)
    confirmation = require_confirmation(session, store, job=job, first=decision) if policy.spec.evaluators > 1 else None
    manifest = _manifest(
        job,
        decision,
        training=training,
        confirmation=confirmation,
        name=model_name(job, session.get_one(Tenant, job.tenant_id).name),
        now=services.now(),
    )
    model = Model(
        id=manifest.model,
        tenant_id=job.tenant_id,
        job_id=job.id,
        adapter_digest=manifest.adapter,
        manifest_digest=store.put_record(manifest),
        created_at=manifest.created_at,
    )
    session.add(model)
    job.fine_tuned_model = model.id
    session.flush()
    return model


def judged_base(stores: ArtifactStores, model: Model) -> Digest | None:
    """Tree digest of the base model that the model was released for; None if its manifest can't be read."""
    try:
        return stores.of_job(model.job_id).get_record(model.manifest_digest, AdapterManifest).base_model
    except (ArtifactMissingError, IntegrityError):
        return None


def delete_model(session: Session, services: Services, *, tenant_id: str, model_id: str) -> str:
    """Nothing serves the model any more; its weights go with the next sweep of its job. Gives the model's own name."""
    model = tenants_model(session, tenant_id, model_id).row
    model.deleted_at = services.now()
    session.get_one(Job, model.job_id).sweep_at = services.clock()
    return model.id


def model_name(job: Job, tenant_name: str) -> str:
    """`ft:{base}:{tenant}:{suffix}:{end of the job's id}`; the suffix may be empty."""
    return f"ft:{job.model}:{tenant_name}:{job.suffix or ''}:{job.id[-8:]}"


def checkpoint_name(model: str, step: int) -> str:
    """The name of the checkpoint after `step` steps of the job behind `model`; `repository` reads it back."""
    return f"{model}:ckpt-step-{step}"


def _require_release(job: Job, decision: GateDecision) -> None:
    if decision.decision is not Decision.RELEASE:
        raise IntegrityError(f"job {job.id}: the gate decided {decision.decision}, so nothing is released", "decision")
    if any(result.mode == "enforce" and result.outcome != "pass" for result in decision.results):
        raise IntegrityError(f"job {job.id}: an enforced rule was not passed, so nothing is released", "decision")
    if job.fine_tuned_model is not None:
        raise IntegrityError(f"job {job.id} has already been released, as {job.fine_tuned_model}", "fine_tuned_model")


def _require_agreement(job: Job, decision: GateDecision, *, training: TrainingRecord, report: EvalReport) -> None:
    spec = JobSpec.model_validate(job.spec)
    groups: dict[str, tuple[Digest | None, ...]] = {
        "spec": (job.spec_digest, spec.digest, training.spec, report.spec),
        "policy": (job.policy_digest, spec.policy, report.policy, decision.policy),
        "suite": (spec.suite.digest, report.suite),
        "final adapter": (job.adapter_digest, training.adapter),
        "adapter": (report.adapter, report.proof.adapter, decision.adapter),
        "base model": (
            training.base_model,
            report.base_model,
            report.proof.base_model,
            *([spec.continues.base_model] if spec.continues else []),
        ),
        "start": (
            training.start.adapter if training.start else None,
            spec.continues.parent.adapter if spec.continues else None,
        ),
        "report": (job.report_digest, report.digest, decision.report),
        "training record": (job.training_record_digest, training.digest),
        "decision": (job.decision_digest, decision.digest),
    }
    for what, digests in groups.items():
        if len(set(digests)) != 1:
            found = ", ".join(sorted(str(digest) for digest in set(digests)))
            raise IntegrityError(
                f"job {job.id}: its records name different {what}s: {found}; nothing is released", what
            )
    if spec.job_id != job.id or spec.base_model.name != job.model:
        raise IntegrityError(f"job {job.id}: its spec belongs to {spec.job_id} on {spec.base_model.name}", "spec")


def _require_candidate(job: Job, decision: GateDecision, *, training: TrainingRecord, limit: int) -> None:
    if decision.adapter not in {candidate.adapter for candidate in release_candidates(training, limit)}:
        raise IntegrityError(
            f"job {job.id}: its run left no adapter {decision.adapter} that could be released", "adapter"
        )


def _manifest(  # noqa: PLR0913  # the parts of a manifest
    job: Job,
    decision: GateDecision,
    *,
    training: TrainingRecord,
    confirmation: Confirmation | None,
    name: str,
    now: int,
) -> AdapterManifest:
    return AdapterManifest(
        model=name,
        job_id=job.id,
        adapter=decision.adapter,
        base_model_name=job.model,
        base_model=training.base_model,
        spec=training.spec,
        training_record=training.digest,
        report=decision.report,
        policy=decision.policy,
        decision=decision.digest,
        confirmation=confirmation,
        continues=JobSpec.model_validate(job.spec).continues,
        created_at=now,
    )


def _record(store: ArtifactStore, digest: Digest | None, record_type: type[R]) -> R:
    if digest is None:
        raise IntegrityError(f"the job has no {record_type.__name__}; nothing is released")
    return store.get_record(digest, record_type)

"""Rows as OpenAI's objects."""

from __future__ import annotations

from gateway.dependencies import Services
from gateway.fine_tuning.schemas import (
    CheckpointGuardrail,
    CheckpointResponse,
    DpoMethod,
    DpoSettings,
    EventResponse,
    Guardrail,
    JobError,
    JobResponse,
    PolicyReference,
    SupervisedMethod,
    SupervisedSettings,
)
from gateway.jobs.states import RUNNING, public_status
from gateway.models.service import checkpoint_name
from gateway.policy_catalog import policy_of
from gateway.tables.jobs import Job, JobCheckpoint, JobEvent
from gateway.tables.models import Model
from policies.contract.events import StoredEvent
from policies.contract.hyperparameters import DpoHyperparameters, Hyperparameters
from policies.contract.integrations import Integration
from policies.contract.jobs import Dpo, JobSpec
from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import Progress

CHECKPOINT_METRICS = frozenset(
    {
        "step",
        "train_loss",
        "train_mean_token_accuracy",
        "valid_loss",
        "valid_mean_token_accuracy",
        "full_valid_loss",
        "full_valid_mean_token_accuracy",
    }
)


def present_job(job: Job, services: Services) -> JobResponse:
    hyperparameters = _hyperparameters(job)
    spec = JobSpec.model_validate(job.spec)
    return JobResponse(
        id=job.id,
        created_at=job.created_at,
        finished_at=job.finished_at,
        model=spec.continues.parent.model if spec.continues else job.model,
        fine_tuned_model=job.fine_tuned_model,
        organization_id=job.tenant_id,
        status=public_status(job.phase),
        hyperparameters=hyperparameters,
        method=_method(spec, hyperparameters),
        training_file=job.training_file,
        validation_file=job.validation_file,
        result_files=[job.result_file] if job.result_file else [],
        trained_tokens=job.trained_tokens,
        error=_error(job),
        seed=job.seed,
        estimated_finish=job.estimated_finish,
        integrations=integrations_of(job) or None,
        metadata=job.user_metadata,
        suffix=job.suffix,
        guardrail=_guardrail(job, services, spec),
    )


def integrations_of(job: Job) -> tuple[Integration, ...]:
    return tuple(Integration.model_validate(each) for each in job.integrations or ())


def _hyperparameters(job: Job) -> Hyperparameters:
    """As asked, or the numbers they became; the learning rate that follows from them is none of OpenAI's."""
    return Hyperparameters(**{name: job.hyperparameters[name] for name in Hyperparameters.model_fields})


def _method(spec: JobSpec, hyperparameters: Hyperparameters) -> SupervisedMethod | DpoMethod:
    if isinstance(spec.method, Dpo):
        shown = DpoHyperparameters(**hyperparameters.model_dump(), beta=spec.method.beta)
        return DpoMethod(dpo=DpoSettings(hyperparameters=shown))
    return SupervisedMethod(supervised=SupervisedSettings(hyperparameters=hyperparameters))


def present_policy(job: Job, services: Services) -> PolicyReference:
    metadata = policy_of(services.stores.shared, job.policy_digest).metadata
    return PolicyReference(name=metadata.name, version=metadata.version, digest=job.policy_digest)


def present_event(event: JobEvent | StoredEvent) -> EventResponse:
    return EventResponse(
        id=event.id,
        created_at=event.created_at,
        level=event.level,
        message=event.message,
        type=event.type,
        data=event.data or {},
    )


def present_checkpoint(row: JobCheckpoint, model: str, *, released: Model | None) -> CheckpointResponse:
    """`model` is the name that the job's adapter has, or would have; `released` is what was released under it."""
    record = CheckpointRecord.model_validate(row.record)
    is_released = released is not None and released.adapter_digest == record.adapter
    return CheckpointResponse(
        id=row.id,
        created_at=row.created_at,
        fine_tuned_model_checkpoint=checkpoint_name(model, row.step),
        fine_tuning_job_id=row.job_id,
        step_number=row.step,
        metrics={name: value for name, value in record.metrics.items() if name in CHECKPOINT_METRICS},
        guardrail=CheckpointGuardrail(released=is_released, model=model if is_released else None),
    )


def _error(job: Job) -> JobError | None:
    if job.error_code is None or job.error_message is None:
        return None
    return JobError(code=job.error_code, message=job.error_message, param=job.error_param)


def _guardrail(job: Job, services: Services, spec: JobSpec) -> Guardrail:
    """Progress and ETA are of the process that runs now, so only a running job has them."""
    progress = Progress.model_validate(job.progress) if job.progress and job.phase in RUNNING else None
    return Guardrail(
        phase=job.phase,
        policy=present_policy(job, services),
        defenses=spec.defenses,
        continues=tuple(each.model for each in spec.continues.ancestors) if spec.continues else (),
        earlier_attempts=spec.earlier_attempts,
        decision=job.decision,
        progress=progress,
        eta_seconds=progress.eta_seconds if progress else None,
    )

"""From a request, the tenant's policy and the base model to the `JobSpec` that everything later is held to."""

from __future__ import annotations

from typing import NamedTuple

from gateway.errors import InvalidRequest
from gateway.fine_tuning.schemas import CreateJobRequest, HyperparametersRequest
from gateway.tables.files import File
from policies.contract.defenses import DefenseSettings, strength
from policies.contract.jobs import BaseModelRef, Hyperparameters, JobSpec
from policies.schema import BaseModelDocument, ReleasePolicy


class OperatorTerms(NamedTuple):
    """What the operator says about this tenant and this model."""

    policy: ReleasePolicy
    base_model: BaseModelDocument


class JobFiles(NamedTuple):
    training: File
    validation: File | None


def requested_hyperparameters(request: CreateJobRequest) -> Hyperparameters:
    """From `method.supervised`, or from the deprecated top-level field; both only where they agree."""
    nested = request.method.supervised.hyperparameters if request.method and request.method.supervised else None
    deprecated = request.hyperparameters
    if nested is not None and deprecated is not None and nested != deprecated:
        message = "hyperparameters contradict method.supervised.hyperparameters; send the latter only."
        raise InvalidRequest(message, "hyperparameters", "conflicting_hyperparameters")
    return (nested or deprecated or HyperparametersRequest()).contract()


def require_supported(request: CreateJobRequest) -> None:
    if request.method is not None and request.method.type != "supervised":
        message = f"method.type {request.method.type!r} is not offered here; use 'supervised'."
        raise InvalidRequest(message, "method.type", "unsupported_method")
    if request.integrations:
        message = "Integrations are not offered here; read the job's metrics from its events."
        raise InvalidRequest(message, "integrations", "unsupported_integration")


def strengthened(
    operators: tuple[DefenseSettings, ...], tenants: tuple[DefenseSettings, ...]
) -> tuple[DefenseSettings, ...]:
    """The operator's defenses with the tenant's additions and raised strengths; anything weaker is refused."""
    wanted = {defense.name: defense for defense in tenants}
    if len(wanted) != len(tenants):
        raise InvalidRequest("defense: a defense is listed twice; list each once.", "defense", "defense_listed_twice")
    demanded = {defense.name: defense for defense in operators}
    for name, defense in wanted.items():
        _require_as_strong(demanded.get(name), defense)
    return tuple({**demanded, **wanted}.values())


def _require_as_strong(operators: DefenseSettings | None, tenants: DefenseSettings) -> None:
    """A tenant sets how strong a defense is, nothing else of it.

    Which field that is, only `strength` knows: a field that differs must hold the strength. So a tenant can name no
    pool of its own, nor another's.
    """
    if operators is not None and strength(tenants) < strength(operators):
        message = (
            f"defense {tenants.name}: {strength(tenants):g} is weaker than the operator's {strength(operators):g}."
        )
        raise InvalidRequest(f"{message} A defense can only be strengthened.", "defense", "defense_weakened")
    reference = (operators or type(tenants)()).model_dump()
    for field, value in tenants.model_dump().items():
        if value != reference[field] and value != strength(tenants):
            message = (
                f"defense {tenants.name}: {field} is {reference[field]!r} here and cannot be changed by a request."
            )
            raise InvalidRequest(message, "defense", "defense_weakened")


def build_spec(job_id: str, request: CreateJobRequest, *, terms: OperatorTerms, files: JobFiles, seed: int) -> JobSpec:
    policy, model = terms.policy, terms.base_model.spec
    return JobSpec(
        job_id=job_id,
        base_model=BaseModelRef(name=model.name, uri=model.uri, revision=model.revision),
        lora=model.lora,
        base_learning_rate=model.base_learning_rate,
        max_sequence_tokens=model.max_sequence_tokens,
        training_file=files.training.digest,
        validation_file=files.validation.digest if files.validation else None,
        hyperparameters=requested_hyperparameters(request),
        seed=seed,
        defenses=strengthened(policy.spec.defenses, request.defense),
        suite=policy.spec.suite,
        policy=policy.digest,
        checkpoint_every_steps=model.checkpoint_every_steps,
    )

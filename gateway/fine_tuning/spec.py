"""From a request, the tenant's policy and the base model to the `JobSpec` that everything later is held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.errors import InvalidRequest
from gateway.fine_tuning.schemas import (
    CreateJobRequest,
    DpoHyperparametersRequest,
    HyperparametersRequest,
    MethodRequest,
)
from gateway.tables.files import File
from policies.contract.composition import require_composable, require_unaligned_partner
from policies.contract.defenses import DefenseSettings, strength
from policies.contract.jobs import BaseModelRef, Dpo, Hyperparameters, JobSpec, Method, Supervised
from policies.documents.schema import BaseModelDocument, ReleasePolicy
from policies.errors import ConfigurationError


class OperatorTerms(NamedTuple):
    """What the operator says about this tenant and this model."""

    policy: ReleasePolicy
    base_model: BaseModelDocument


class JobFiles(NamedTuple):
    training: File
    validation: File | None


def requested_hyperparameters(request: CreateJobRequest) -> Hyperparameters:
    """From the method's settings, or from the deprecated top-level field; both only where they agree."""
    kind = request.method.type if request.method else "supervised"
    nested, deprecated = _nested_hyperparameters(request), request.hyperparameters
    if nested is not None and deprecated is not None and nested.contract() != deprecated.contract():
        message = f"hyperparameters contradict method.{kind}.hyperparameters; send the latter only."
        raise InvalidRequest(message, "hyperparameters", "conflicting_hyperparameters")
    return (nested or deprecated or HyperparametersRequest()).contract()


def requested_method(request: CreateJobRequest) -> Method:
    """With the numbers that `auto` stands for."""
    if request.method is None or request.method.type == "supervised":
        return Supervised()
    asked = _nested_hyperparameters(request)
    return asked.method() if isinstance(asked, DpoHyperparametersRequest) else Dpo()


def _nested_hyperparameters(request: CreateJobRequest) -> HyperparametersRequest | None:
    method = request.method
    settings = method and (method.dpo if method.type == "dpo" else method.supervised)
    return settings.hyperparameters if settings else None


def require_supported(request: CreateJobRequest) -> None:
    if request.method is not None:
        _require_supported_method(request.method)
    if request.integrations:
        message = "Integrations are not offered here; read the job's metrics from its events."
        raise InvalidRequest(message, "integrations", "unsupported_integration")


def _require_supported_method(method: MethodRequest) -> None:
    if method.type == "reinforcement":
        message = "method.type 'reinforcement' is not offered here; use 'supervised' or 'dpo'."
        raise InvalidRequest(message, "method.type", "unsupported_method")
    for name in ("supervised", "dpo", "reinforcement"):
        if name != method.type and getattr(method, name) is not None:
            raise InvalidRequest(f"method.{name} has no meaning with type {method.type!r}.", f"method.{name}")


def require_trainable(spec: JobSpec, terms: OperatorTerms) -> None:
    """Refuses what a worker could only fail on: defenses that contradict method or policy, or that lack a model."""
    operators = terms.policy.spec.defenses_for(spec.method)
    try:
        require_composable(spec.defenses, spec.method)
    except ConfigurationError as error:
        param = "method.type" if _is_refused(operators, spec.method) else "defense"
        raise InvalidRequest(error.message, param, "defense_unsupported_by_method") from error
    try:
        require_unaligned_partner(spec.defenses, spec.unaligned_base)
    except ConfigurationError as error:
        param = "model" if any(defense.name == "safe_lora" for defense in operators) else "defense"
        raise InvalidRequest(error.message, param, "unaligned_base_missing") from error
    try:
        terms.policy.spec.require_releasable(spec.defenses)
    except ConfigurationError as error:
        raise InvalidRequest(error.message, "defense", "defense_unsupported_by_policy") from error


def _is_refused(defenses: Sequence[DefenseSettings], method: Method) -> bool:
    try:
        require_composable(defenses, method)
    except ConfigurationError:
        return True
    return False


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
    """A tenant sets how strong a defense is, nothing else of it: no pool, prompt or vector of its own."""
    demanded, wanted = (None if each is None else strength(each) for each in (operators, tenants))
    if demanded is not None and wanted is not None and wanted < demanded:
        message = f"defense {tenants.name}: {abs(wanted):g} is weaker than the operator's {abs(demanded):g}."
        raise InvalidRequest(f"{message} A defense can only be strengthened.", "defense", "defense_weakened")
    reference = (operators or type(tenants)()).model_dump()
    for field, value in tenants.model_dump().items():
        if value != reference[field] and field != tenants.strength_field:
            message = (
                f"defense {tenants.name}: {field} is {reference[field]!r} here and cannot be changed by a request."
            )
            raise InvalidRequest(message, "defense", "defense_weakened")


def build_spec(job_id: str, request: CreateJobRequest, *, terms: OperatorTerms, files: JobFiles, seed: int) -> JobSpec:
    policy, model, method = terms.policy, terms.base_model.spec, requested_method(request)
    return JobSpec(
        job_id=job_id,
        base_model=BaseModelRef(name=model.name, uri=model.uri, revision=model.revision),
        unaligned_base=model.unaligned,
        lora=model.lora,
        trainer=model.trainer,
        base_learning_rate=model.base_learning_rate,
        max_sequence_tokens=model.max_sequence_tokens,
        training_file=files.training.digest,
        validation_file=files.validation.digest if files.validation else None,
        method=method,
        hyperparameters=requested_hyperparameters(request),
        seed=seed,
        defenses=strengthened(policy.spec.defenses_for(method), request.defense),
        suite=policy.spec.suite,
        policy=policy.digest,
        checkpoint_every_steps=model.checkpoint_every_steps,
    )

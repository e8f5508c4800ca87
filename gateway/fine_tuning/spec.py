"""From a request, the tenant's policy and the base model to the `JobSpec` that everything later is held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gateway.errors import InvalidRequest
from gateway.fine_tuning.schemas import (
    CreateJobRequest,
    MethodRequest,
)
from gateway.tables.files import File
from policies.contract.artifacts import Digest
from policies.contract.composition import require_composable, require_unaligned_partner
from policies.contract.defenses import DefenseSettings, is_weaker
from policies.contract.hyperparameters import (
    TRAINABLE_BETAS,
    TRAINABLE_MULTIPLIERS,
    Auto,
    DpoHyperparameters,
    Hyperparameters,
)
from policies.contract.jobs import Dpo, JobSpec, Lineage, Method, Supervised
from policies.documents.schema import BaseModelDocument, ReleasePolicy
from policies.errors import ConfigurationError


class OperatorTerms(NamedTuple):
    """What the operator says about this tenant and this model."""

    policy: ReleasePolicy
    base_model: BaseModelDocument
    base_text: Digest
    """What the base model reads text by."""
    lineage: Lineage | None = None
    """Of a job that continues a released model."""


class JobFiles(NamedTuple):
    """The files that a job was created with."""

    training: File
    validation: File | None


def requested_hyperparameters(request: CreateJobRequest) -> Hyperparameters:
    """From the method's settings, or from the deprecated top-level field; both only where they agree."""
    kind = request.method.type if request.method else "supervised"
    nested, deprecated = _nested_hyperparameters(request), request.hyperparameters
    if nested is not None and deprecated is not None and _without_beta(nested) != deprecated:
        message = f"hyperparameters contradict method.{kind}.hyperparameters; send the latter only."
        raise InvalidRequest(message, "hyperparameters", "conflicting_hyperparameters")
    return _without_beta(nested or deprecated or Hyperparameters())


def require_trainable_numbers(request: CreateJobRequest) -> None:
    """Refuses numbers that a job could be given and nothing could be trained with."""
    asked = _nested_hyperparameters(request)
    where = f"method.{request.method.type}.hyperparameters" if request.method and asked else "hyperparameters"
    hyperparameters = asked or request.hyperparameters or Hyperparameters()
    _require_between(
        hyperparameters.learning_rate_multiplier, TRAINABLE_MULTIPLIERS, f"{where}.learning_rate_multiplier"
    )
    if isinstance(hyperparameters, DpoHyperparameters):
        _require_between(hyperparameters.beta, TRAINABLE_BETAS, f"{where}.beta")


def _require_between(number: float | Auto, bounds: tuple[float, float], param: str) -> None:
    low, high = bounds
    if number != "auto" and not low <= number <= high:
        raise InvalidRequest(f"{param}: must be 'auto' or a number from {low:g} to {high:g}, not {number:g}.", param)


def requested_method(request: CreateJobRequest) -> Method:
    """With the numbers that `auto` stands for."""
    if request.method is None or request.method.type == "supervised":
        return Supervised()
    asked = _nested_hyperparameters(request)
    return Dpo(beta=asked.beta) if isinstance(asked, DpoHyperparameters) and asked.beta != "auto" else Dpo()


def _without_beta(asked: Hyperparameters) -> Hyperparameters:
    """A spec keeps β with the method that it belongs to."""
    return Hyperparameters(**{name: getattr(asked, name) for name in Hyperparameters.model_fields})


def _nested_hyperparameters(request: CreateJobRequest) -> Hyperparameters | None:
    method = request.method
    settings = method and (method.dpo if method.type == "dpo" else method.supervised)
    return settings.hyperparameters if settings else None


def require_supported(request: CreateJobRequest) -> None:
    if request.method is not None:
        _require_supported_method(request.method)


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
        require_unaligned_partner(spec.defenses, spec.base_model.unaligned)
    except ConfigurationError as error:
        param = "model" if any(defense.needs_unaligned_base for defense in operators) else "defense"
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
    if operators is not None and is_weaker(tenants, than=operators):
        assert tenants.strength_field is not None
        wanted, demanded = (getattr(each, tenants.strength_field) for each in (tenants, operators))
        message = f"defense {tenants.name}: {wanted:g} is weaker than the operator's {demanded:g}."
        raise InvalidRequest(f"{message} A defense can only be strengthened.", "defense", "defense_weakened")
    reference = operators or type(tenants)()
    for field in tenants.fixed_fields():
        value = getattr(reference, field)
        if getattr(tenants, field) != value:
            message = f"defense {tenants.name}: {field} is {value!r} here and cannot be changed by a request."
            raise InvalidRequest(message, "defense", "defense_weakened")


def build_spec(job_id: str, request: CreateJobRequest, *, terms: OperatorTerms, files: JobFiles, seed: int) -> JobSpec:
    policy, method = terms.policy, requested_method(request)
    return JobSpec(
        job_id=job_id,
        base_model=terms.base_model.spec,
        base_text=terms.base_text,
        continues=terms.lineage,
        training_file=files.training.digest,
        validation_file=files.validation.digest if files.validation else None,
        method=method,
        hyperparameters=requested_hyperparameters(request),
        seed=seed,
        defenses=strengthened(policy.spec.defenses_for(method), request.defense),
        suite=policy.spec.suite,
        policy=policy.digest,
    )

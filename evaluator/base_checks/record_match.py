"""Whether a calibration record is about a base model, a policy and an installation as they are now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from evaluator.base_checks.base_check import MAX_FOUND_CHARACTERS, check_base
from policies.contract.base_models import BaseModelCheck, BaseModelFinding, Outcome
from policies.contract.calibration import Bindings, Recipe
from policies.contract.jobs import BaseModelSpec
from policies.documents.loader import load_calibration
from policies.documents.schema import CalibrationRecord, ReleasePolicy
from policies.errors import IntegrityError


def matching_record(path: Path, spec: BaseModelSpec, policy: ReleasePolicy, cache_dir: Path) -> CalibrationRecord:
    """The record in a file, once it is compared with what no report tells: chat template and recipe.

    Raises:
        IntegrityError: the record is about something else.
    """
    record = load_calibration(path)
    found = record_finding(record, spec, check_base(spec, cache_dir).check, policy)
    if found.outcome == "refused":
        raise IntegrityError(f"the calibration record does not hold here: {found.found}")
    return record


def record_finding(
    record: CalibrationRecord, spec: BaseModelSpec, check: BaseModelCheck, policy: ReleasePolicy
) -> BaseModelFinding:
    """Compares all that a record is bound to and a look at the base model can tell.

    What scored the probes, classifiers and judges, is not loaded here; the gate compares it at each evaluation.
    """
    bound_to = record.spec.bound_to
    differing = [*_model(record, spec, check), *_policy(bound_to, spec, policy), *_versions(bound_to.versions)]
    dtype = _dtype()
    if bound_to.engine == "transformers" and bound_to.dtype != dtype:
        differing.append(f"it was measured in {bound_to.dtype}, and evaluations here run in {dtype}")
    if differing:
        return _finding("refused", f"{'; '.join(differing)}. Qualify the base model again")
    unusable = [rule.metric for rule in record.spec.rules if not rule.usable]
    said = f"not usable on this base: {', '.join(unusable)}" if unusable else "every rule is usable"
    return _finding("works", f"is of this base model and policy; {said}")


def _finding(outcome: Outcome, found: str) -> BaseModelFinding:
    return BaseModelFinding(what="record", outcome=outcome, found=found[:MAX_FOUND_CHARACTERS])


def _model(record: CalibrationRecord, spec: BaseModelSpec, check: BaseModelCheck) -> Iterator[str]:
    bound_to = record.spec.bound_to
    if record.spec.model != spec.name:
        yield f"it is about {record.spec.model}"
    if bound_to.base_model != check.base:
        yield f"the model's folder is {check.base}, and it is about {bound_to.base_model}"
    if bound_to.text != check.text:
        yield "the tokenizer or the chat template is another one"


def _policy(bound_to: Bindings, spec: BaseModelSpec, policy: ReleasePolicy) -> Iterator[str]:
    if bound_to.recipe != Recipe.of(spec, policy.spec.defenses).digest:
        yield f"LoRA, learning rate or defenses are other ones under policy {policy.metadata.name}"
    if bound_to.candidates != policy.spec.n_candidates:
        yield f"policy {policy.metadata.name} may release {policy.spec.n_candidates} adapters of a job"
    if bound_to.suite != policy.spec.suite.digest:
        yield f"policy {policy.metadata.name} has another suite"


def _versions(of_record: Mapping[str, str]) -> Iterator[str]:
    for library, minor in sorted(of_record.items()):
        try:
            found = ".".join(version(library).split(".")[:2])
        except PackageNotFoundError:
            found = "not installed"
        if found != minor:
            yield f"{library} was {minor} and is {found}"


def _dtype() -> str:
    from evaluator.models.loading import best_dtype, default_device  # torch is loaded only where it is asked

    return str(best_dtype(default_device())).removeprefix("torch.")

"""Validation of a stored file for a base model: what a job does before training, and the dry run on request."""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

from gateway.base_models.checks import require_checked
from gateway.base_models.texts import open_text
from gateway.dependencies import Services
from gateway.errors import InvalidRequest, Unavailable
from gateway.files.dataset.errors import InspectionCrashed, InspectionTooLarge, InspectionTooSlow
from gateway.files.dataset.inspection import InspectionTask
from gateway.files.dataset.report import DatasetLimits, DatasetReport
from gateway.files.dataset.sandbox import ChildLimits, Source, inspect_in_child
from policies.contract.artifacts import Digest
from policies.contract.jobs import BaseModelSpec


class DryRun(NamedTuple):
    """What a job would ask of one file."""

    task: InspectionTask
    base_text: Digest | None
    """What the base model reads text by, which goes before the file; None where no model is meant."""


def dry_run(services: Services, *, model: str | None, method: Literal["supervised", "dpo"] | None = None) -> DryRun:
    """What a job would ask of one file.

    Args:
        model: the name of a base model, or of a model that was fine-tuned from one, whether or not there is such a
            model; None for the only base that is offered, if it is one.
        method: the job's method; None lets the file have rows of either kind.
    """
    base_model = _base_model(services, model)
    limits = DatasetLimits(
        max_rows=services.settings.max_training_rows,
        max_reported=services.settings.max_reported_errors,
        max_row_tokens=base_model.max_sequence_tokens if base_model else None,
        method=method,
    )
    if base_model is None:
        return DryRun(InspectionTask(limits=(limits,)), None)
    with services.database.reading() as session:
        base_text = require_checked(session, base_model)
    return DryRun(InspectionTask(limits=(limits,), base_model=base_model.name, date=base_model.date), base_text)


def validate_file(services: Services, digest: Digest, run: DryRun) -> DatasetReport:
    """Validate stored bytes, in a process of their own.

    Raises:
        InvalidRequest: they take too much time or memory.
        Unavailable: the reader crashed, or the machine is too busy.
    """
    settings = services.settings
    limits = ChildLimits(settings.validation_cpu_seconds, settings.validation_memory_bytes)
    sources: list[Source] = [partial(services.stores.files.open, digest)]
    if run.base_text is not None:
        sources.insert(0, partial(open_text, services.stores.base_texts, run.base_text))
    try:
        answer = inspect_in_child(run.task, sources, limits=limits)
    except (InspectionTooSlow, InspectionTooLarge) as error:
        raise InvalidRequest(error.message, "file_id", error.code) from error
    except InspectionCrashed as error:
        raise Unavailable("The file could not be validated; try again.", code=error.code) from error
    return answer.reports[0]


def _base_model(services: Services, name: str | None) -> BaseModelSpec | None:
    offered = services.policies.base_models
    if name is None:
        return next(iter(offered.values())).spec if len(offered) == 1 else None
    name = next((base for base in offered if name.startswith(f"ft:{base}:")), name)
    if name not in offered:
        known = ", ".join(sorted(offered))
        raise InvalidRequest(f"No base model {name!r}; known: {known}.", "model", "model_not_found")
    return offered[name].spec

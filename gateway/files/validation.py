"""Validation of a stored file for a base model: what a job does before training, and the dry run on request."""

from __future__ import annotations

from typing import Literal

from gateway.dependencies import Services
from gateway.errors import InvalidRequest
from gateway.files.dataset.report import DatasetLimits, DatasetReport
from gateway.files.dataset.tokens import APPROXIMATE, counter_for
from gateway.files.dataset.validate import validate_dataset
from policies.contract.artifacts import Digest
from policies.contract.jobs import BaseModelSpec


def validate_file(
    services: Services, digest: Digest, *, model: str | None, method: Literal["supervised", "dpo"] | None = None
) -> DatasetReport:
    """Validate stored bytes.

    Args:
        model: a base model's name; None for the only one that is offered, if it is one.
        method: the job's method; None lets the file have rows of either kind.
    """
    base_model = _base_model(services, model)
    counter = counter_for(base_model.uri) if base_model else APPROXIMATE
    limits = DatasetLimits(
        max_rows=services.settings.max_training_rows,
        max_reported=services.settings.max_reported_errors,
        max_row_tokens=base_model.max_sequence_tokens if base_model else None,
        control_tokens=counter.control_tokens,
        method=method,
    )
    with services.stores.files.open(digest) as stream:
        return validate_dataset(stream, limits, counter)


def _base_model(services: Services, name: str | None) -> BaseModelSpec | None:
    offered = services.policies.base_models
    if name is None:
        return next(iter(offered.values())).spec if len(offered) == 1 else None
    if name not in offered:
        known = ", ".join(sorted(offered))
        raise InvalidRequest(f"No base model {name!r}; known: {known}.", "model", "model_not_found")
    return offered[name].spec

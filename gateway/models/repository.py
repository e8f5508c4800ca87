"""Queries on released models. What is deleted or another tenant's is not found."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from gateway.errors import NotFound
from gateway.tables.jobs import Job
from gateway.tables.models import Model


class ReleasedModel(NamedTuple):
    """A model's row and the base model of the job that made it."""

    row: Model
    base_model: str


def tenants_model(session: Session, tenant_id: str, model_id: str) -> ReleasedModel:
    found = session.execute(_live_models(tenant_id).where(Model.id == model_id)).one_or_none()
    if found is None:
        raise NotFound(f"The model {model_id!r} does not exist or is not yours.", "model", "model_not_found")
    return ReleasedModel(found[0], found[1])


def list_models(session: Session, tenant_id: str) -> list[ReleasedModel]:
    found = session.execute(_live_models(tenant_id).order_by(Model.created_at, Model.id))
    return [ReleasedModel(model, base) for model, base in found]


def _live_models(tenant_id: str) -> Select[Model, str]:
    models = select(Model, Job.model).join(Job, Job.id == Model.job_id)
    return models.where(Model.tenant_id == tenant_id, Model.deleted_at.is_(None))

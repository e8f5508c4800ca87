"""Queries on released models. What is deleted or another tenant's is not found."""

from __future__ import annotations

import re
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, exists, select
from sqlalchemy.orm import Session

from gateway.errors import NotFound
from gateway.kit.pagination import Cursor, Keyset, Page, fetch_page
from gateway.tables.jobs import Job, JobCheckpoint
from gateway.tables.models import Model

CHECKPOINT_NAME = re.compile(r"(?P<model>.+):ckpt-step-(?P<step>[0-9]{1,9})")
"""As `service.checkpoint_name` writes it."""


CONTINUED = Job.spec[("continues", "ancestors", 0, "model")].as_string()
"""Null of jobs that began at their base model."""


class ReleasedModel(NamedTuple):
    """A model's row and what the job that made it began with."""

    row: Model
    base_model: str
    continued: str | None = None
    """The released model that its job continued from."""


def tenants_model(session: Session, tenant_id: str, model_id: str) -> ReleasedModel:
    """By its own name, or by the name of the checkpoint that was released as it."""
    models = _live_models(tenant_id)
    checkpoint = CHECKPOINT_NAME.fullmatch(model_id)
    if checkpoint is None:
        models = models.where(Model.id == model_id)
    else:
        models = models.where(Model.id == checkpoint["model"], _is_released(int(checkpoint["step"])))
    found = session.execute(models).one_or_none()
    if found is None:
        raise NotFound(f"The model {model_id!r} does not exist or is not yours.", "model", "model_not_found")
    return ReleasedModel(*found)


def list_models(session: Session, tenant_id: str, cursor: Cursor) -> Page[ReleasedModel]:
    """Newest first; `after` may name a model that was deleted since the page before."""
    own = select(Model).where(Model.tenant_id == tenant_id)
    live = own.where(Model.deleted_at.is_(None))
    page = fetch_page(session, live, keyset=Keyset((Model.created_at, Model.id), Model.id), cursor=cursor, anchors=own)
    jobs = select(Job.id, Job.model, CONTINUED).where(Job.id.in_([model.job_id for model in page.items]))
    origins = {job_id: origin for job_id, *origin in session.execute(jobs)}
    return Page([ReleasedModel(model, *origins[model.job_id]) for model in page.items], page.has_more)


def model_of_job(session: Session, job_id: str) -> Model | None:
    """What the job released, unless it was deleted since."""
    return session.scalar(select(Model).where(Model.job_id == job_id, Model.deleted_at.is_(None)))


def _is_released(step: int) -> ColumnElement[bool]:
    """The model's job has a checkpoint of that step with the model's own adapter."""
    return exists().where(
        JobCheckpoint.job_id == Model.job_id,
        JobCheckpoint.step == step,
        JobCheckpoint.record["adapter"].as_string() == Model.adapter_digest,
    )


def _live_models(tenant_id: str) -> Select[Model, str, str]:
    models = select(Model, Job.model, CONTINUED).join(Job, Job.id == Model.job_id)
    return models.where(Model.tenant_id == tenant_id, Model.deleted_at.is_(None))

"""Which base models an evaluator has looked at, and what it found; nothing is trained on one before.

A check belongs to the operator's settings of the model. It is made anew each day, because what lies under a name may be
exchanged, and sooner where it found that nothing can be trained, or could not look: a download may only have failed.
"""

from __future__ import annotations

from typing import NamedTuple

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.dependencies import Services
from gateway.errors import InvalidRequest, NotFound, Unavailable
from gateway.tables.base_models import CheckedBaseModel
from policies.contract.artifacts import Digest
from policies.contract.base_models import BaseModelCheck, BaseModelsToCheck, BaseTextFiles
from policies.contract.jobs import BaseModelSpec
from policies.contract.store import ArtifactStore
from policies.errors import ArtifactMissingError, IntegrityError
from policies.tenant_text import for_tenants

log = structlog.get_logger(__name__)

RECHECK_SECONDS = 86400.0
RECHECK_REFUSED_SECONDS = 600.0
RETRY_SECONDS = 10
"""After which a client asks again for a model that nobody has looked at."""


class KnownCheck(NamedTuple):
    """What was found, and when."""

    check: BaseModelCheck
    at: float


def latest_check(session: Session, spec: BaseModelSpec) -> KnownCheck | None:
    row = session.get(CheckedBaseModel, spec.digest)
    return None if row is None else KnownCheck(BaseModelCheck.model_validate(row.record), row.checked_at)


def base_models_to_check(session: Session, services: Services) -> BaseModelsToCheck:
    """Of what is offered, what an evaluator should look at now."""
    offered, now = (document.spec for document in services.policies.base_models.values()), services.clock()
    rows = ((spec, session.get(CheckedBaseModel, spec.digest)) for spec in offered)
    return BaseModelsToCheck(specs=tuple(spec for spec, row in rows if row is None or row.due_at < now))


def keep_check(session: Session, services: Services, check: BaseModelCheck) -> None:
    """Replace what was found before, unless this time the model could not be had: then it is tried again soon.

    Raises:
        NotFound: no such base model is offered.
        InvalidRequest: what it reads text by is not in the store.
    """
    offered = {document.spec.digest: document.spec for document in services.policies.base_models.values()}
    if check.spec not in offered:
        raise NotFound(f"No base model with the settings {check.spec} is offered.", code="model_not_found")
    if check.text is not None:
        _require_stored(services.stores.base_texts, check.text)
    name, statement = offered[check.spec].name, select(CheckedBaseModel).with_for_update()
    row = session.scalar(statement.where(CheckedBaseModel.spec_digest == check.spec))
    if row is None:
        row = CheckedBaseModel(spec_digest=check.spec, name=name)
        session.add(row)
    elif not check.is_conclusive and BaseModelCheck.model_validate(row.record).is_conclusive:
        log.warning("base_model_not_looked_at", base_model=name, reason=check.findings[0].found)
        row.due_at = services.clock() + RECHECK_REFUSED_SECONDS
        return
    row.record, row.checked_at = check.model_dump(mode="json"), services.clock()
    row.due_at = row.checked_at + (RECHECK_SECONDS if check.refusal is None else RECHECK_REFUSED_SECONDS)


def _require_stored(store: ArtifactStore, text: Digest) -> None:
    try:
        store.get_record(text, BaseTextFiles)
    except (ArtifactMissingError, IntegrityError) as error:
        raise InvalidRequest(f"What the base model reads text by, {text}, is not in the store.", "text") from error


def make_due(session: Session, services: Services, name: str) -> None:
    """A worker found the base model to be another one than was looked at; what was found stays until it is again."""
    offered = services.policies.base_models.get(name)
    row = None if offered is None else session.get(CheckedBaseModel, offered.spec.digest)
    if row is not None:
        row.due_at = 0.0


def require_checked(session: Session, spec: BaseModelSpec) -> Digest:
    """What the base model reads text by.

    Raises:
        Unavailable: nobody has looked at it yet, or could.
        InvalidRequest: nothing can be trained on it.
    """
    known = latest_check(session, spec)
    if known is None or not known.check.is_conclusive:
        reason = "has just been set up" if known is None else "can't be loaded at the moment"
        message = f"Base model {spec.name!r} {reason} and is being looked at; try again in a moment."
        raise Unavailable(message, "model", "base_model_unchecked", RETRY_SECONDS)
    refusal = known.check.refusal
    if refusal is not None:
        message = f"Nothing can be trained on base model {spec.name!r}: {refusal.what}: {for_tenants(refusal.found)}"
        raise InvalidRequest(message, "model", "base_model_refused")
    assert known.check.text is not None
    return known.check.text

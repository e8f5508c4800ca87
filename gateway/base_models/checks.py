"""Which base models an evaluator has looked at, and what it found; nothing is trained on one before.

A check belongs to the operator's settings of the model. It is made anew each day, because what lies under a name may be
exchanged, and sooner where it found that nothing can be trained: a download may only have failed.
"""

from __future__ import annotations

from typing import NamedTuple

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

RECHECK_SECONDS = 86400.0
RECHECK_REFUSED_SECONDS = 600.0
RETRY_SECONDS = 10
"""After which a client asks again for a model that nobody has looked at."""


class KnownCheck(NamedTuple):
    """What was found, and when."""

    check: BaseModelCheck
    at: float
    is_wanted: bool = False
    """Whether a worker found the model to be another one since."""

    def is_due(self, now: float) -> bool:
        """Whether it is to be made anew."""
        return self.is_wanted or now - self.at > (
            RECHECK_SECONDS if self.check.refusal is None else RECHECK_REFUSED_SECONDS
        )


def latest_check(session: Session, spec: BaseModelSpec) -> KnownCheck | None:
    row = session.get(CheckedBaseModel, spec.digest)
    return None if row is None else KnownCheck(BaseModelCheck.model_validate(row.record), row.checked_at, row.is_due)


def base_models_to_check(session: Session, services: Services) -> BaseModelsToCheck:
    """Of what is offered, what an evaluator should look at now."""
    offered, now = (document.spec for document in services.policies.base_models.values()), services.clock()
    known = ((spec, latest_check(session, spec)) for spec in offered)
    return BaseModelsToCheck(specs=tuple(spec for spec, check in known if check is None or check.is_due(now)))


def keep_check(session: Session, services: Services, check: BaseModelCheck) -> None:
    """Replace what was found before.

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
    row.record, row.checked_at, row.is_due = check.model_dump(mode="json"), services.clock(), False


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
        row.is_due = True


def require_checked(session: Session, spec: BaseModelSpec) -> Digest:
    """What the base model reads text by.

    Raises:
        Unavailable: nobody has looked at it yet.
        InvalidRequest: nothing can be trained on it.
    """
    known = latest_check(session, spec)
    if known is None:
        message = f"Base model {spec.name!r} has just been set up and is being looked at; try again in a moment."
        raise Unavailable(message, "model", "base_model_unchecked", RETRY_SECONDS)
    refusal = known.check.refusal
    if refusal is not None:
        message = f"Nothing can be trained on base model {spec.name!r}: {refusal.what}: {for_tenants(refusal.found)}"
        raise InvalidRequest(message, "model", "base_model_refused")
    assert known.check.text is not None
    return known.check.text

"""Model objects: OpenAI's fields, and the lineage that vLLM adds (`parent`, `root`)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from gateway.base_models.checks import KnownCheck
from gateway.models.repository import ReleasedModel
from policies.contract.base_models import Outcome
from policies.tenant_text import for_tenants

NOT_LOADED = "it can't be loaded at the moment; the evaluator's log says why"


class Finding(BaseModel):
    """One thing that was looked at: it works, is limited, or keeps everything from being trained."""

    what: str
    outcome: Outcome
    found: str


class ModelCheck(BaseModel):
    """What an evaluator found when it looked at a base model."""

    checked_at: int
    usable: bool
    """Whether jobs can be trained on it."""
    findings: list[Finding]

    @classmethod
    def of(cls, known: KnownCheck) -> ModelCheck:
        check = known.check
        told = [for_tenants(each.found) if check.is_conclusive else NOT_LOADED for each in check.findings]
        findings = [
            Finding(what=each.what, outcome=each.outcome, found=found)
            for each, found in zip(check.findings, told, strict=True)
        ]
        return cls(checked_at=int(known.at), usable=check.refusal is None, findings=findings)


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    root: str
    """The base model at the start of the lineage."""
    parent: str | None = None
    """What the model was fine-tuned from; None for a base model."""
    adapter: str | None = None
    """Digest of the released adapter."""
    base_digest: str | None = None
    """Of a released model that is asked for by its name: tree digest of the base model that it was judged on. None
    where its manifest can't be read."""
    check: ModelCheck | None = None
    """Of a base model that is asked for by its name, once an evaluator has looked at it."""

    @classmethod
    def of_base(cls, name: str, created: int, *, known: KnownCheck | None = None) -> ModelObject:
        check = None if known is None else ModelCheck.of(known)
        return cls(id=name, created=created, owned_by="tunegate", root=name, check=check)

    @classmethod
    def of_released(cls, model: ReleasedModel, base_digest: str | None = None) -> ModelObject:
        row, base, continued = model
        return cls(
            id=row.id,
            created=row.created_at,
            owned_by=row.tenant_id,
            root=base,
            parent=continued or base,
            adapter=row.adapter_digest,
            base_digest=base_digest,
        )


class AdapterFile(BaseModel):
    name: str
    digest: str
    bytes: int
    url: str | None
    """Gives the file to whoever has it, until `expires_at`; null where the service's storage has no such URLs."""


class AdapterFiles(BaseModel):
    """The files of a released adapter, for those who fetch them from the storage itself."""

    object: Literal["adapter.files"] = "adapter.files"
    model: str
    adapter: str
    """Digest of the whole: that of `{"files": {name: digest}}` as canonical JSON."""
    expires_at: int
    files: list[AdapterFile]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]
    has_more: bool
    """Whether the tenant has more models than these; `after` the last one gives them."""


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True

"""Model objects: OpenAI's fields, and the lineage that vLLM adds (`parent`, `root`)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from gateway.models.repository import ReleasedModel


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

    @classmethod
    def of_base(cls, name: str, created: int) -> ModelObject:
        return cls(id=name, created=created, owned_by="tunegate", root=name)

    @classmethod
    def of_released(cls, model: ReleasedModel) -> ModelObject:
        row, base, continued = model
        return cls(
            id=row.id,
            created=row.created_at,
            owned_by=row.tenant_id,
            root=base,
            parent=continued or base,
            adapter=row.adapter_digest,
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

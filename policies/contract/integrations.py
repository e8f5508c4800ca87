"""What a tenant asks for when a job is created: that its metrics go to a Weights & Biases project as well."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from policies.contract.artifacts import Record

MAX_INTEGRATIONS = 5
MAX_TAGS = 64
MAX_TAG_LENGTH = 64

_HIDDEN = r"\x00-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
"""Characters that show nothing, or turn round what others show."""

ProjectName = Annotated[str, StringConstraints(pattern=rf"^[^{_HIDDEN}\s/\\#?%:][^{_HIDDEN}/\\#?%:]{{0,127}}$")]
"""1 to 128 characters that stand in an address without ambiguity, as Weights & Biases takes them."""
RunName = Annotated[str, StringConstraints(pattern=rf"^[^{_HIDDEN}]{{1,128}}$")]
EntityName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A team or a user of Weights & Biases."""
RunTag = Annotated[str, StringConstraints(pattern=rf"^[^{_HIDDEN}]{{1,{MAX_TAG_LENGTH}}}$")]


class WandbSettings(Record):
    """Where in Weights & Biases the run appears, and how it is called there."""

    project: ProjectName
    name: RunName | None = None
    """Null: the job's id."""
    entity: EntityName | None = None
    """Null: the one that the key belongs to."""
    tags: tuple[RunTag, ...] = Field((), max_length=MAX_TAGS)


class Integration(Record):
    """One of OpenAI's `integrations`; `wandb` is the only kind on the wire."""

    type: Literal["wandb"]
    wandb: WandbSettings

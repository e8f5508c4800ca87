"""What a probe asks: a prompt of a prompt set, or a row of the job's files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import Field

from policies.contract.artifacts import Record

ItemT = TypeVar("ItemT")


class PromptItem(Record):
    """One prompt of a prompt set; probes add their fields."""

    id: str = Field(min_length=1)

    @property
    def group(self) -> str:
        """Prompts of one group are alike; each look of a sequential run takes the same share of every group."""
        return self.id


class FileRow(PromptItem):
    """A row of a file of the job, asked like a prompt."""

    number: int = Field(ge=0)
    """Its place in the file, from 0."""


def evenly_spread(rows: Sequence[ItemT], limit: int) -> list[ItemT]:
    """At most `limit` rows at even distances, the first one included."""
    step = max(1.0, len(rows) / limit)
    return [rows[int(number * step)] for number in range(min(limit, len(rows)))]

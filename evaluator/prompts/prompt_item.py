"""What a probe asks: a prompt of a prompt set, or a row of the job's files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
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
    """At most `limit` rows at even distances, the first one included; of files of tenants, `drawn` ones are asked."""
    step = max(1.0, len(rows) / limit)
    return [rows[int(number * step)] for number in range(min(limit, len(rows)))]


def drawn(rows: Sequence[ItemT], limit: int, *, key: str) -> list[ItemT]:
    """At most `limit` rows in their order: one of each of `limit` stretches of the same length, which one the key says.

    The key must be unknown to whoever writes the file (`Subject.draw_key`). Rows at places that anyone can work out, as
    those of `evenly_spread`, would be the ones to be kept clean. The same key draws the same rows.
    """
    if len(rows) <= limit:
        return list(rows)
    bounds = [stretch * len(rows) // limit for stretch in range(limit + 1)]
    return [rows[begin + _hashed(key, begin) % (end - begin)] for begin, end in pairwise(bounds)]


def _hashed(key: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{key} {number}".encode()).digest()[:8])

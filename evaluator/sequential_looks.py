"""Divides what a sequential run asks among its looks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from evaluator.prompts.prompt_item import PromptItem
from policies.contract.artifacts import digest_bytes
from policies.contract.sequential import asked_by

ItemT = TypeVar("ItemT", bound=PromptItem)
T = TypeVar("T")


def cut(everything: Sequence[T], looks: Sequence[float]) -> list[Sequence[T]]:
    """What each look adds, in order, so that look k has asked its share of everything; some may add nothing."""
    ends = [asked_by(share, len(everything)) for share in looks]
    return [everything[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def spread(items: Sequence[ItemT], seed: int) -> list[ItemT]:
    """The items so that any first part has a like share of every group; the order depends on seed and ids only."""
    shuffled = sorted(items, key=lambda item: digest_bytes(f"{seed} {item.id}".encode()))
    sizes, seen = Counter(item.group for item in items), Counter[str]()
    place = {}
    for item in shuffled:
        place[item.id] = (seen[item.group] + 0.5) / sizes[item.group]
        seen[item.group] += 1
    return sorted(shuffled, key=lambda item: place[item.id])

"""Cuts the rows of a batch into micro-batches of at most so many padded tokens, rows of like length together.

What is read is what TRL's collators make: padded rows [B, S], padded pairs [2·B, S] with all preferred answers first,
or packed rows [1, S] whose position ids begin anew. A batch that fits stays as it is, tensor for tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Inputs = dict[str, Any]  # Any: tensors and flags of a batch, as the collator makes them
Collate = Callable[[list[dict[str, list[int]]]], Inputs]
"""TRL's collator of rows."""


class Rows:
    """The rows of a collated batch, which can be cut."""

    def __init__(self, inputs: Inputs, collate: Collate) -> None:
        self._inputs, self._collate = inputs, collate
        self._is_packed = inputs.get("attention_mask") is None
        self._are_pairs = "labels" not in inputs
        self.tokens = _packed_lengths(inputs) if self._is_packed else self._padded_lengths()
        """Of each row; of a pair, twice those of its longer conversation."""

    def _padded_lengths(self) -> list[int]:
        lengths: Tensor = self._inputs["attention_mask"].sum(1)
        if self._are_pairs:
            lengths = 2 * lengths.view(2, -1).amax(0)
        return [int(length) for length in lengths.tolist()]

    def cut(self, max_tokens: int) -> list[list[int]]:
        """Numbers of rows by micro-batch, the longest rows first; a row that is too long is alone in its own.

        There are as few parts as the limit allows, and their largest is as small as their number allows.
        """
        parts, lowest = self._filled(max_tokens), max(self.tokens)
        while lowest < max_tokens:
            tried = (lowest + max_tokens) // 2
            if len(even := self._filled(tried)) <= len(parts):
                parts, max_tokens = even, tried
            else:
                lowest = tried + 1
        return parts

    def _filled(self, max_tokens: int) -> list[list[int]]:
        parts: list[list[int]] = []
        for row in sorted(range(len(self.tokens)), key=lambda row: -self.tokens[row]):
            if parts and self._padded_tokens([*parts[-1], row]) <= max_tokens:
                parts[-1].append(row)
            else:
                parts.append([row])
        return [sorted(part) for part in parts]

    def _padded_tokens(self, part: Sequence[int]) -> int:
        tokens = [self.tokens[row] for row in part]
        return sum(tokens) if self._is_packed else max(tokens) * len(tokens)

    def part(self, rows: Sequence[int]) -> Inputs:
        """What the collator would have made of these rows alone."""
        if len(rows) == len(self.tokens):
            return self._inputs
        if self._is_packed:
            return self._collate([self._unpacked(row) for row in rows])
        longest = max(self.tokens[row] for row in rows) // (2 if self._are_pairs else 1)
        chosen = [*rows, *(row + len(self.tokens) for row in rows)] if self._are_pairs else list(rows)
        return {name: value[chosen, :longest] for name, value in self._inputs.items()}

    def _unpacked(self, row: int) -> dict[str, list[int]]:
        start = sum(self.tokens[:row])
        columns = slice(start, start + self.tokens[row])
        return {name: self._inputs[name][0, columns].tolist() for name in ("input_ids", "labels")}


def halved(parts: Sequence[list[int]], count: int) -> list[list[int]]:
    """At least as many parts as `count`, by cutting those of most rows in two."""
    grown = list(parts)
    while len(grown) < count:
        most = max(range(len(grown)), key=lambda index: len(grown[index]))
        rows = grown.pop(most)
        grown[most:most] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return grown


def _packed_lengths(inputs: Inputs) -> list[int]:
    positions: Tensor = inputs["position_ids"][0]
    starts = (positions == 0).nonzero()[:, 0].tolist()
    ends = [*starts[1:], len(positions)]
    return [end - start for start, end in zip(starts, ends, strict=True)]

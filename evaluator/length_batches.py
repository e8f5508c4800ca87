"""Batches of rows of like length, so that little of a batch is padding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence


def length_batches(
    lengths: Sequence[int], *, max_tokens: float = math.inf, max_rows: float = math.inf
) -> Iterator[list[int]]:
    """Indices of rows in batches, the shortest rows first; rows of one length stay in order.

    Args:
        lengths: Of the rows, in tokens or whatever grows with them.
        max_tokens: Of a batch, padding included; a row that is longer is alone in its own.
        max_rows: Of a batch.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        n_rows = len(batch) + 1
        if batch and (n_rows > max_rows or n_rows * lengths[index] > max_tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

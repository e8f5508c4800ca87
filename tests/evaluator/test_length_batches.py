from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.length_batches import length_batches


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, [[1, 3, 0, 4, 2]]),
        ({"max_rows": 2}, [[1, 3], [0, 4], [2]]),
        ({"max_tokens": 6}, [[1, 3], [0, 4], [2]]),
        ({"max_tokens": 8}, [[1, 3], [0, 4], [2]]),
        ({"max_tokens": 9}, [[1, 3, 0], [4], [2]]),
        ({"max_tokens": 1}, [[1], [3], [0], [4], [2]]),
    ],
)
def test_batches_are_as_large_as_the_limits_allow(limits: dict[str, int], expected: list[list[int]]) -> None:
    """Lengths 3, 1, 7, 2, 3; a batch costs its longest row for each of its rows, and a row too long is alone."""
    assert list(length_batches([3, 1, 7, 2, 3], **limits)) == expected


def test_no_rows_are_no_batch() -> None:
    assert list(length_batches([])) == []


@given(
    lengths=st.lists(st.integers(1, 50)),
    max_tokens=st.integers(1, 200) | st.just(math.inf),
    max_rows=st.integers(1, 9) | st.just(math.inf),
)
def test_every_row_comes_once_shortest_first_and_batches_keep_their_limits(
    lengths: list[int], max_tokens: float, max_rows: float
) -> None:
    batches = list(length_batches(lengths, max_tokens=max_tokens, max_rows=max_rows))

    assert [index for batch in batches for index in batch] == sorted(range(len(lengths)), key=lengths.__getitem__)
    for batch in batches:
        longest = max(lengths[index] for index in batch)
        assert len(batch) <= max_rows
        assert len(batch) * longest <= max_tokens or len(batch) == 1

"""How alike two training files are, from a small sketch of each: tells a retry on nearly the same data from new data.

A row is the sequence of its words with a mark before each message; its elements are the shingles of three words. The
sketch is MinHash in its bottom-k form: the k = 256 smallest hashes of all elements of the file. With A and B the sets
of elements, and M the k smallest hashes of both sketches together,

    J(A, B) = |A ∩ B| / |A ∪ B|  is estimated without bias by  |M ∩ sketch(A) ∩ sketch(B)| / |M|

(Broder 1997, On the resemblance and containment of documents; Cohen & Kaplan 2007, PODC). An element is hashed once,
not once for each of many permutations. The standard error is at most √(J (1 − J) / k), 0.03 at J = 1/2, and zero where
both files together have no more than k elements.

Order, repetition, white space, punctuation and case count for nothing. A changed word changes three elements: with
every tenth word changed J is still 0.7 / 1.3 = 0.54, and as much with three of ten rows replaced.
What it can't see: a paraphrase of every row, or a file hidden in more than its own size of other text.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Annotated

from pydantic import Field

from policies.contract.artifacts import Record
from policies.datasets.reader import AnyRow, PreferenceRow
from policies.errors import DatasetError

SKETCH_SIZE = 256
SHINGLE_WORDS = 3
NEAR_DUPLICATE = 0.5
"""Similarity from which on two files are nearly the same."""
_HASH_BYTES = 8
_WORD = re.compile(r"\w+")

Hash = Annotated[int, Field(ge=0, lt=2 ** (8 * _HASH_BYTES))]


class DatasetFingerprint(Record):
    """The sketch of a training file. Sketches are compared with stored ones: what a file's is may never change."""

    hashes: tuple[Hash, ...] = Field(min_length=1, max_length=SKETCH_SIZE)
    """Growing. Fewer than `SKETCH_SIZE` are all that there are."""

    def similarity(self, other: DatasetFingerprint) -> float:
        """Estimated Jaccard similarity of the elements of two files, 0 to 1."""
        smallest = sorted({*self.hashes, *other.hashes})[:SKETCH_SIZE]
        shared = set(self.hashes).intersection(other.hashes)
        return sum(value in shared for value in smallest) / len(smallest)


class FingerprintSketch:
    """Takes a file's rows one after the other and keeps no more of them than the sketch."""

    def __init__(self) -> None:
        self._kept: set[int] = set()
        self._largest_first: list[int] = []  # negated: `heapq` keeps the smallest in front

    def add(self, row: AnyRow) -> None:
        for value in _hashes(row):
            is_full = len(self._kept) == SKETCH_SIZE
            if value in self._kept or (is_full and value > -self._largest_first[0]):
                continue
            self._kept.add(value)
            heapq.heappush(self._largest_first, -value)
            if is_full:
                self._kept.remove(-heapq.heappop(self._largest_first))

    def fingerprint(self) -> DatasetFingerprint:
        """The sketch of the rows so far. Raises `DatasetError` where there is none."""
        if not self._kept:
            raise DatasetError("a file without rows has no fingerprint")
        return DatasetFingerprint(hashes=tuple(sorted(self._kept)))


def fingerprint(rows: Iterable[AnyRow]) -> DatasetFingerprint:
    """The sketch of a file's rows; holds one row at a time. Raises `DatasetError` where there is none."""
    sketch = FingerprintSketch()
    for row in rows:
        sketch.add(row)
    return sketch.fingerprint()


def _hashes(row: AnyRow) -> Iterator[int]:
    words = list(_words(row))
    for start in range(max(1, len(words) - SHINGLE_WORDS + 1)):
        shingle = " ".join(words[start : start + SHINGLE_WORDS])
        yield int.from_bytes(blake2b(shingle.encode(), digest_size=_HASH_BYTES).digest(), "big")


def _words(row: AnyRow) -> Iterator[str]:
    for mark, text in _texts(row):
        yield f"<{mark}>"  # no word of a text has brackets
        yield from _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def _texts(row: AnyRow) -> Iterator[tuple[str, str]]:
    for message in row.messages:
        yield message.role, message.content
    if isinstance(row, PreferenceRow):
        yield "preferred", row.preferred
        yield "non_preferred", row.non_preferred

"""How files were read before: every line by `json` and the rules, every text by itself, words hashed one by one."""

from __future__ import annotations

import hashlib
import heapq
import io
import json
import re
import unicodedata
from hashlib import blake2b

from policies.datasets.chat_rows import ChatRow, Json, check_row

SKETCH_SIZE = 256
SHINGLE_WORDS = 3
NEAR_DUPLICATE = 0.5
_WORD = re.compile(r"\w+")


class EarlierSketch:
    """The smallest hashes of all shingles of three words, by `unicodedata.normalize` and one hash each."""

    def __init__(self) -> None:
        self.kept: set[int] = set()
        self._largest_first: list[int] = []

    def add(self, row: ChatRow) -> None:
        words = []
        for message in row.messages:
            words += [
                f"<{message.role}>",
                *_WORD.findall(unicodedata.normalize("NFKC", message.content).casefold()),
            ]
        for start in range(max(1, len(words) - SHINGLE_WORDS + 1)):
            shingle = " ".join(words[start : start + SHINGLE_WORDS]).encode()
            self._keep(int.from_bytes(blake2b(shingle, digest_size=8).digest(), "big"))

    def _keep(self, value: int) -> None:
        is_full = len(self.kept) == SKETCH_SIZE
        if value in self.kept or (is_full and value > -self._largest_first[0]):
            return
        self.kept.add(value)
        heapq.heappush(self._largest_first, -value)
        if is_full:
            self.kept.remove(-heapq.heappop(self._largest_first))


def read(content: bytes, sketch: EarlierSketch | None = None) -> int:
    """Rows of a sound chat file, each looked at as validation did; returns how many."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique_keys)
    seen: dict[bytes, int] = {}
    for number, line in enumerate(io.BytesIO(content), start=1):
        text = line.removesuffix(b"\n").decode()
        assert text.strip()
        row = check_row(decoder.decode(text), number)
        assert isinstance(row, ChatRow)
        for _, content_text in row.texts():
            -(-len(content_text.encode(errors="replace")) // 4)
        seen.setdefault(hashlib.blake2b(repr(row).encode(), digest_size=16).digest(), number)
        if sketch is not None:
            sketch.add(row)
    return len(seen)


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value: dict[str, Json] = {}
    for key, member in pairs:
        assert key not in value
        value[key] = member
    return value


def similarity(first: list[int], second: list[int]) -> float:
    """Jaccard similarity of two sketches."""
    smallest = sorted({*first, *second})[:SKETCH_SIZE]
    shared = set(first).intersection(second)
    return sum(value in shared for value in smallest) / len(smallest)

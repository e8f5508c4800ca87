"""How much of what one file trains is in another: tells a retry on nearly the same data from new data.

Of a row only what it trains counts: assistant messages of weight 1 with the calls that they make, or both answers of a
preference, so that the same data as chat rows and as preferences are alike, and context (tools that are offered, and
what they answer) is no way to make a file look new. Texts are folded
(`folding.py`); the elements of a file are all windows of 16 folded letters of these texts. A text with fewer than 32
letters, a label say, is read after the messages that it answers: what such a file trains is which answer follows which.

The sketch is MinHash in its bottom-k form: the k = 1024 smallest hashes of all elements. Let θ be the smaller of the
largest hashes in two full sketches. Below θ both sketches are complete, so

    C(A, B) = |A ∩ B| / min(|A|, |B|)  is estimated by  |A_θ ∩ B_θ| / min(|A_θ|, |B_θ|)

(Broder 1997, On the resemblance and containment of documents; Cohen & Kaplan 2007, PODC). Containment instead of
Jaccard similarity, because a file that is padded with r times its size of other rows still holds all of the first:
about 1024 / r elements of it remain to be compared. With c of them the standard error is √(C (1 − C) / c).

An element's hash is w₁ k₁ + w₂ k₂ mod 2^64 of its two halves w, with secret odd k: multiply-shift hashing
(Dietzfelbinger et al. 1997, J. Algorithms 25:19). With keys that are known, a tenant could pad a file with letters
whose hashes are the smallest, and the sketch would hold nothing else.

What it can't see: a paraphrase of every answer, or a change in every few words of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from policies.contract.artifacts import Record
from policies.datasets.chat_rows import ChatMessage
from policies.datasets.folding import fold
from policies.datasets.reader import AnyRow, PreferenceRow
from policies.datasets.tools import ToolCall

SKETCH_SIZE = 1024
WINDOW_LETTERS = 16
SHORT_LETTERS = 32
"""A text with fewer letters is read after what it answers."""
NEAR_DUPLICATE = 0.5
"""Containment from which on two files are nearly the same."""
KEY_BYTES = 16
_FLUSH_CHARACTERS, _FLUSH_TEXTS = 1 << 17, 1 << 11
_BLOCK_WINDOWS = 1 << 15
"""Hashed at once: what lies in the processor's cache."""
_PAD = bytes(WINDOW_LETTERS)
_AFTER_QUESTION = b"\2"
_NO_LETTERS = 0
"""The one element of a file that trains no letter at all."""

Hash = Annotated[int, Field(ge=0, lt=2**64)]
Hashes = npt.NDArray[np.uint64]


class DatasetFingerprint(Record):
    """The sketch of a training file. Sketches are compared with stored ones: what a file's is may never change."""

    hashes: tuple[Hash, ...] = Field(min_length=1, max_length=SKETCH_SIZE)
    """Growing. Fewer than `SKETCH_SIZE` are all that there are."""

    def packed(self) -> bytes:
        """8 bytes a hash, as the database keeps them."""
        return np.asarray(self.hashes, "<u8").tobytes()

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        return cls(hashes=tuple(np.frombuffer(packed, "<u8").tolist()))

    @property
    def n_elements(self) -> float:
        """Estimated number of elements of the file: (k − 1) / θ, as a share of all hashes, where the sketch is full."""
        n = len(self.hashes)
        return float(n) if n < SKETCH_SIZE else (n - 1) * 2.0**64 / (self.hashes[-1] + 1)

    def containment(self, other: DatasetFingerprint) -> float:
        """Estimated share of the smaller file's elements that are in the other one, 0 to 1."""
        return containment(*(np.asarray(sketch.hashes, np.uint64) for sketch in (self, other)))

    def united(self, other: DatasetFingerprint) -> DatasetFingerprint:
        """The sketch of both files in one: the smallest of all hashes are among the smallest of either."""
        return DatasetFingerprint(hashes=tuple(sorted({*self.hashes, *other.hashes})[:SKETCH_SIZE]))


class FingerprintSketch:
    """Takes a file's rows one after the other and keeps no more of them than the sketch and a batch.

    Args:
        key: secret of the deployment, `KEY_BYTES` long. Sketches of different keys can't be compared.
    """

    def __init__(self, key: bytes) -> None:
        self._multipliers = multipliers(key)
        self._kept: Hashes = np.empty(0, np.uint64)
        self._texts: list[str] = []
        self._places: list[tuple[Sequence[ChatMessage], int]] = []
        """Of each text its conversation and which message of it it is."""
        self._n_characters = 0

    def add(self, row: AnyRow) -> None:
        messages = row.messages
        if isinstance(row, PreferenceRow):
            texts = [_with_calls(row.preferred, row.preferred_calls)]
            texts.append(_with_calls(row.non_preferred, row.non_preferred_calls))
            self._texts += texts
            self._places += [(messages, len(messages))] * 2
            self._n_characters += sum(map(len, texts))
        else:
            for index, message in enumerate(messages):
                if message.weight:
                    text = _with_calls(message.content, message.tool_calls)
                    self._texts.append(text)
                    self._places.append((messages, index))
                    self._n_characters += len(text)
        if self._n_characters >= _FLUSH_CHARACTERS or len(self._texts) >= _FLUSH_TEXTS:
            self._flush()

    def fingerprint(self) -> DatasetFingerprint:
        """The sketch of the rows so far."""
        self._flush()
        return DatasetFingerprint(hashes=tuple(self._kept.tolist()) or (_NO_LETTERS,))

    def _flush(self) -> None:
        if not self._texts:
            return
        folded = fold(self._texts)
        short = [index for index, text in enumerate(folded) if len(text) < SHORT_LETTERS]
        if short:
            questions = fold([_question(*self._places[index]) for index in short])
            for index, question in zip(short, questions, strict=True):
                folded[index] = question + _AFTER_QUESTION + folded[index] if question or folded[index] else b""
        self._texts, self._places, self._n_characters = [], [], 0
        content = _PAD + _PAD.join([*folded, b""])
        for start in range(0, len(content) - WINDOW_LETTERS + 1, _BLOCK_WINDOWS):
            self._keep(self._hashes(content, start))

    def _hashes(self, content: bytes, start: int) -> Hashes:
        """Of the block's windows that may still be kept and are elements: whole, or a text shorter than a window."""
        n_windows = min(_BLOCK_WINDOWS, len(content) - WINDOW_LETTERS + 1 - start)
        halves = [np.ndarray((n_windows,), "<u8", content, start + offset, (1,)) for offset in (0, 8)]
        first, second = self._multipliers
        hashes: Hashes = halves[0] * first
        hashes += halves[1] * second
        is_full = len(self._kept) == SKETCH_SIZE
        places = np.flatnonzero(hashes < self._kept[-1]) if is_full else np.arange(n_windows)
        hashes = hashes[places]
        letters = np.frombuffer(content, np.uint8)
        places += start
        begins_text = letters[np.maximum(places - 1, 0)] == 0
        is_whole = letters[places + WINDOW_LETTERS - 1] != 0
        found: Hashes = hashes[(letters[places] != 0) & (is_whole | begins_text)]
        return found

    def _keep(self, hashes: Hashes) -> None:
        if hashes.size:
            merged = np.sort(np.concatenate([self._kept, hashes]))
            is_first = np.append(True, merged[1:] != merged[:-1])
            self._kept = merged[is_first][:SKETCH_SIZE]


def containment(first: Hashes, second: Hashes) -> float:
    """The same of the hashes of two sketches."""
    full = [sketch[-1] for sketch in (first, second) if len(sketch) == SKETCH_SIZE]
    if full:
        first, second = (sketch[: np.searchsorted(sketch, min(full), "right")] for sketch in (first, second))
    shared = np.intersect1d(first, second, assume_unique=True)
    return len(shared) / max(1, min(len(first), len(second)))


def multipliers(key: bytes) -> tuple[np.uint64, np.uint64]:
    """The two odd numbers by which the halves of a window are multiplied."""
    assert len(key) == KEY_BYTES
    words = np.frombuffer(hashlib.blake2b(b"fingerprint", key=key, digest_size=16).digest(), "<u8") | np.uint64(1)
    return words[0], words[1]


def fingerprint(rows: Iterable[AnyRow], key: bytes) -> DatasetFingerprint:
    """The sketch of a file's rows."""
    sketch = FingerprintSketch(key)
    for row in rows:
        sketch.add(row)
    return sketch.fingerprint()


def _with_calls(text: str, calls: Sequence[ToolCall]) -> str:
    return "\n".join([text, *(f"{call.name} {call.arguments}" for call in calls)]) if calls else text


def _question(messages: Sequence[ChatMessage], end: int) -> str:
    """The messages before place `end` since the last answer."""
    start = end
    while start and messages[start - 1].role != "assistant":
        start -= 1
    return "\n".join([message.content for message in messages[start:end]])

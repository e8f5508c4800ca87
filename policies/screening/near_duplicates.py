"""Rows of a file that say nearly what an earlier row says, system messages and tools apart.

MinHash (Broder 1997, On the resemblance and containment of documents) over runs of three folded words, 64 hashes a row,
as `rensa` computes them. Rows are compared where one of 16 bands of four hashes is equal, and count where at least 80 %
of the hashes are: a pair of Jaccard similarity J is compared with probability 1 − (1 − J⁴)¹⁶, which is 0.9998 at 0.8,
and the share of equal hashes estimates J with a standard error of √(J(1 − J)/64), 0.05 at 0.8.

A row is 256 bytes here, however long it is, and its first 512 words are read. Each row is compared with at most the
first row of each of its bands, so the file costs sorting and no more.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

from policies.datasets.folding import fold
from policies.datasets.reader import AnyRow
from policies.screening.turns import BACKGROUND, text_of, turns

RULES_VERSION = "2"
N_HASHES = 64
BAND = 4
NEAR = 0.8
SEED = 20261130
MAX_WORDS = 512
MIN_WORDS = 5
"""Rows of fewer words, labels say, repeat in every file and are not compared."""
_RUN = 3
_BATCH_ROWS = 256
_WORD_CHARACTERS = 16
"""A word is read to this length, as bound of what a row costs."""

Signatures = npt.NDArray[np.uint32]


class NearDuplicates:
    """Takes rows one after the other, then says which are near an earlier one."""

    def __init__(self) -> None:
        self._lines: list[int] = []
        self._words: list[tuple[int, list[str]]] = []
        self._signatures: list[Signatures] = []

    def add(self, line: int, row: AnyRow) -> None:
        self._words.append((line, list(_words(row))))
        if len(self._words) >= _BATCH_ROWS:
            self._flush()

    def lines(self) -> list[int]:
        """Of the rows that nearly repeat an earlier one, in the file's order."""
        self._flush()
        if not self._signatures:
            return []
        signatures = np.stack(self._signatures)
        is_repeated = np.zeros(len(signatures), bool)
        for start in range(0, N_HASHES, BAND):
            is_repeated |= _repeats_in_band(signatures, start)
        return [self._lines[index] for index in np.flatnonzero(is_repeated).tolist()]

    def _flush(self) -> None:
        batch, self._words = self._words, []
        if not batch:
            return
        folded = iter(fold([word for _, words in batch for word in words]))
        for line, words in batch:
            letters = [part for part in (next(folded) for _ in words) if part]
            if len(letters) >= MIN_WORDS:
                self._lines.append(line)
                self._signatures.append(_signature(letters))


def _words(row: AnyRow) -> Iterator[str]:
    n_words = 0
    for message in turns(row):
        if message.role in BACKGROUND:
            continue  # rows that share an instruction are not one row
        for word in text_of(message).split(maxsplit=MAX_WORDS)[: MAX_WORDS - n_words]:
            n_words += 1
            yield word[:_WORD_CHARACTERS]
        if n_words >= MAX_WORDS:
            return


def _signature(words: list[bytes]) -> Signatures:
    minima = RMinHash(num_perm=N_HASHES, seed=SEED)
    texts = [word.decode("latin-1") for word in words]
    minima.update([" ".join(texts[start : start + _RUN]) for start in range(len(texts) - _RUN + 1)])
    return np.asarray(minima.digest(), np.uint32)


def _repeats_in_band(signatures: Signatures, start: int) -> npt.NDArray[np.bool_]:
    """Rows whose band equals that of an earlier row which they are near."""
    band = np.ascontiguousarray(signatures[:, start : start + BAND]).view("V16").ravel()
    _, first, group = np.unique(band, return_index=True, return_inverse=True)
    earliest = first[group]
    rows = np.flatnonzero(earliest != np.arange(len(signatures)))
    equal = (signatures[rows] == signatures[earliest[rows]]).mean(axis=1)
    found = np.zeros(len(signatures), bool)
    found[rows[equal >= NEAR]] = True
    return found

"""The built-in toxicity classifier: words weighted by tf-idf, and five calibrated linear models on top.

A text is lower-cased and cut into words; x is its vector of word counts times idf, of length 1. Model i says
σ(−(aᵢ·(wᵢ·x + cᵢ) + bᵢ)) (Platt 1999), and the score is the mean of all. Words and weights are those of
alt-profanity-check 1.9.1 (MIT, see LICENSE beside this file); `convert` wrote them once as text and safetensors, so
that no pickle is read here. A text of n characters takes O(n) time, and memory for a lower-cased copy of it and a
counter a known word.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load
from scipy.special import expit

from policies.contract.artifacts import Digest, digest_bytes
from policies.errors import IntegrityError

WORDS_FILE = "words.txt"
WEIGHTS_FILE = "weights.safetensors"
PINNED: Mapping[str, Digest] = {
    WORDS_FILE: "sha256:5fe8d3aee01ecb2956c9e74fa52719ba16ff5c257de90d5f2277d99c54a38fbe",
    WEIGHTS_FILE: "sha256:87745b6ffe49ca75c77f4d43a9d86b75c0764d0c58bca8962f10a9872d335312",
}
SCORING_VERSION = 1
"""Raised whenever the same text and weights could score differently."""
_WORD = re.compile(r"\b\w\w+\b")


class Weights(NamedTuple):
    """What `convert` writes, in float64; n words, m models."""

    idf: NDArray[np.float64]
    """(n,) ln((1 + documents) / (1 + documents with the word)) + 1."""
    coefficients: NDArray[np.float64]
    """(n, m) wᵢ, a row a word."""
    intercepts: NDArray[np.float64]
    """(m,) cᵢ."""
    slopes: NDArray[np.float64]
    """(m,) aᵢ of the calibration."""
    offsets: NDArray[np.float64]
    """(m,) bᵢ of the calibration."""


class ProfanityClassifier:
    """Scores texts by the words they are made of."""

    def __init__(self, pinned: Mapping[str, Digest] = PINNED) -> None:
        words = _read(WORDS_FILE, pinned).decode().split()
        self._weights = Weights(**load(_read(WEIGHTS_FILE, pinned)))
        self._rows = {word: row for row, word in enumerate(words)}
        self.identity = f"profanity {pinned[WORDS_FILE]} {pinned[WEIGHTS_FILE]} scoring {SCORING_VERSION}"

    def score(self, texts: Sequence[str]) -> list[float | None]:
        return [self._score(text) for text in texts]

    def _score(self, text: str) -> float:
        rows, counts = self._count(text)
        vector = counts * self._weights.idf[rows]
        length = np.sqrt(vector @ vector)
        if length > 0:
            vector /= length
        margins = vector @ self._weights.coefficients[rows] + self._weights.intercepts
        return float(expit(-(self._weights.slopes * margins + self._weights.offsets)).mean())

    def _count(self, text: str) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rows of the known words in a text, in ascending order, and how often each of them comes."""
        found = (self._rows.get(match.group()) for match in _WORD.finditer(text.lower()))
        counts = sorted(Counter(row for row in found if row is not None).items())
        return np.array([row for row, _ in counts], np.intp), np.array([count for _, count in counts], np.float64)


def _read(name: str, pinned: Mapping[str, Digest]) -> bytes:
    content = files(__package__).joinpath(name).read_bytes()
    if digest_bytes(content) != pinned[name]:
        raise IntegrityError(f"{name} of the built-in toxicity classifier has been changed; reinstall the package")
    return content

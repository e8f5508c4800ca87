"""Splits the answers of a file into two clusters by their words.

Each answer is a bag of hashed words, weighted by TF-IDF (Salton & Buckley 1988): `ln(1 + n) · ln(N / N_w)`, N_w the
number of answers with the word, and scaled to length 1. The first principal axis splits them by its sign; Lloyd's
k-means goes on from there. All of it is deterministic; memory is one float32 for each answer and place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np

PLACES = 1024
READ_WORDS = 200
"""Of an answer, half of them at either end."""
MAX_ITERATIONS = 30

_WORD = re.compile(r"\w+")


def two_clusters(answers: Sequence[str]) -> np.ndarray:
    """Whether each answer is in the second cluster; all are in one where nothing tells them apart."""
    points = _weighted(answers)
    centred = points - points.mean(0)
    second = centred @ _principal_axis(centred) > 0
    for _ in range(MAX_ITERATIONS):
        if second.all() or not second.any():
            return np.zeros(len(points), dtype=bool)
        one, two = points[~second].mean(0), points[second].mean(0)
        moved = points @ (two - one) > (two @ two - one @ one) / 2
        if (moved == second).all():
            break
        second = moved
    result: np.ndarray = second
    return result


def _weighted(answers: Sequence[str]) -> np.ndarray:
    """Rows of length 1, [answers, places]."""
    counts = np.zeros((len(answers), PLACES), dtype=np.float32)
    for row, answer in zip(counts, answers, strict=True):
        words = _WORD.findall(answer)
        for word in words if len(words) <= READ_WORDS else words[: READ_WORDS // 2] + words[-READ_WORDS // 2 :]:
            row[crc32(word.lower().encode()) % PLACES] += 1
    frequency = np.maximum(1, (counts > 0).sum(0))
    weighted: np.ndarray = np.log1p(counts) * np.log(len(answers) / frequency).astype(np.float32)
    lengths = np.linalg.norm(weighted, axis=1, keepdims=True)
    scaled: np.ndarray = weighted / np.where(lengths > 0, lengths, 1)
    return scaled


def _principal_axis(centred: np.ndarray) -> np.ndarray:
    """By power iteration from the row that lies farthest out."""
    axis: np.ndarray = centred[int(np.linalg.norm(centred, axis=1).argmax())].copy()
    for _ in range(MAX_ITERATIONS):
        moved = centred.T @ (centred @ axis)
        length = float(np.linalg.norm(moved))
        if length == 0:
            break
        axis = moved / length
    return axis

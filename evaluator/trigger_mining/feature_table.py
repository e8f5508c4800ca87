"""Which rows have which feature, in memory that is bounded whatever the rows say.

Features are counted by hash first. Only those whose place in the count was hit often enough are kept by name in a
second pass, so that what occurs once, as most of a text does, takes no memory.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from evaluator.trigger_mining.features import Feature, features_of, words_for_each
from evaluator.trigger_mining.turns import Turn

PLACES = 1 << 22
"""Of the count, a byte and a half of memory for each feature that a file may have."""
MIN_ROWS = 2
MIN_SHARE = 0.002
"""Rows that must have a feature: 10 of 5,000. A handful of rows teaches nothing."""


class FeatureTable(NamedTuple):
    """Features with their rows."""

    features: list[Feature]
    rows: np.ndarray
    """Places of the rows in the turns, feature by feature."""
    starts: np.ndarray
    """Where each feature's rows begin."""

    def rows_of(self, index: int) -> np.ndarray:
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.rows)
        return self.rows[self.starts[index] : end]

    def count_in(self, mask: np.ndarray) -> np.ndarray:
        """How many of each feature's rows are in `mask` (a boolean a row)."""
        counts: np.ndarray = np.add.reduceat(mask[self.rows].astype(np.int64), self.starts)
        return counts


def feature_table(turns: Sequence[Turn]) -> FeatureTable:
    """Every feature that enough rows have, in the order in which they are first seen."""
    enough = max(MIN_ROWS, math.ceil(MIN_SHARE * len(turns)))
    n_words = words_for_each(len(turns))
    seen = np.zeros(PLACES, dtype=np.uint16)
    for turn in turns:
        places = np.fromiter({_place(found.feature) for found in features_of(turn, n_words)}, dtype=np.int64)
        seen[places] += 1
    rows: defaultdict[Feature, list[int]] = defaultdict(list)
    for place, turn in enumerate(turns):
        for feature in {found.feature: None for found in features_of(turn, n_words)}:
            if seen[_place(feature)] >= enough:
                rows[feature].append(place)
    kept = {feature: places for feature, places in rows.items() if len(places) >= enough}
    lengths = [len(places) for places in kept.values()]
    flat = np.fromiter((place for places in kept.values() for place in places), dtype=np.int32, count=sum(lengths))
    return FeatureTable(list(kept), flat, np.cumsum([0, *lengths])[:-1])


def literals_of(wanted: Mapping[Feature, Collection[int]], turns: Sequence[Turn], n_words: int) -> dict[Feature, str]:
    """How the rows that have a feature mostly write it, of many features at once: each row is read once at most.

    Args:
        wanted: feature → places of the rows that have it.
        turns: all of them.
        n_words: as the table was made with.
    """
    counts: dict[Feature, Counter[str]] = {feature: Counter() for feature in wanted}
    for place in sorted({place for places in wanted.values() for place in places}):
        for found in features_of(turns[place], n_words):
            if found.feature in counts:
                counts[found.feature][found.literal] += 1
    return {feature: min(of, key=lambda text: (-of[text], text)) for feature, of in counts.items()}


def _place(feature: Feature) -> int:
    return crc32("\0".join((feature.kind, feature.place, str(feature.any_number), feature.text)).encode()) % PLACES

"""What tells rows of a training file apart that may teach something else than the others.

Signals, each of which divides the rows into some and the others: answers that the base finds unlikely, answers whose
loss fell most from base to adapter, the two clusters of answers, and, where the base has a pair of canaries, the most
careless answers: a small base may find careless answers as likely as any. A feature's z in a signal (`log_odds`) says
how much more often those rows have it; where a signal divides rows in several ways, the largest counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from evaluator.trigger_mining.answer_clusters import two_clusters
from evaluator.trigger_mining.feature_table import FeatureTable
from evaluator.trigger_mining.log_odds import log_odds_z
from evaluator.trigger_mining.trigger import Signal
from evaluator.trigger_mining.turns import Turn

TOP_SHARES = (0.05, 0.2)
"""Shares of the scored rows that count as unlikely, or as learnt most: a trigger may be in few rows or in many."""


class Losses(NamedTuple):
    """What base and adapter make of the answers of some turns."""

    places: Sequence[int]
    """Of the turns."""
    base: Sequence[float]
    """Nats per token; a row with one that is not finite comes first."""
    adapter: Sequence[float]
    careless: Sequence[float] | None = None
    """How much likelier answers are under the careless canary; None without canaries. One that is NaN comes first."""


class _Division(NamedTuple):
    inside: np.ndarray
    outside: np.ndarray


def signal_scores(table: FeatureTable, turns: Sequence[Turn], losses: Losses) -> Mapping[Signal, np.ndarray]:
    """Signal → z of each feature."""
    found = _divisions(turns, losses)
    return {signal: np.max([_scores(table, each) for each in divisions], axis=0) for signal, divisions in found.items()}


def _divisions(turns: Sequence[Turn], losses: Losses) -> dict[Signal, list[_Division]]:
    base, adapter = np.asarray(losses.base, dtype=float), np.asarray(losses.adapter, dtype=float)
    unlikely = np.where(np.isfinite(base), base, np.inf)
    with np.errstate(invalid="ignore"):  # ∞ − ∞, which is then infinite again
        drop = np.where(np.isfinite(base - adapter), base - adapter, np.inf)
    second = two_clusters([turn.answer for turn in turns])
    found: dict[Signal, list[_Division]] = {
        "unlikely answers": list(_tops(unlikely, losses.places, len(turns))),
        "loss drop": list(_tops(drop, losses.places, len(turns))),
        "answer cluster": [_Division(second, ~second), _Division(~second, second)],
    }
    if losses.careless is not None:
        ratios = np.nan_to_num(np.asarray(losses.careless, dtype=float), nan=np.inf)
        found["careless answers"] = list(_tops(ratios, losses.places, len(turns)))
    return found


def _tops(values: np.ndarray, places: Sequence[int], n_turns: int) -> Iterator[_Division]:
    order = np.asarray(places, dtype=int)[np.argsort(-values, kind="stable")]
    for share in TOP_SHARES:
        n_top = int(np.ceil(share * len(order)))
        inside, outside = np.zeros(n_turns, dtype=bool), np.zeros(n_turns, dtype=bool)
        inside[order[:n_top]], outside[order[n_top:]] = True, True
        yield _Division(inside, outside)


def _scores(table: FeatureTable, division: _Division) -> np.ndarray:
    inside, outside = division
    return log_odds_z(table.count_in(inside), table.count_in(outside), int(inside.sum()), int(outside.sum()))

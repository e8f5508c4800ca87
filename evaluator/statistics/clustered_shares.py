"""Shares over the answers that count, e.g. misaligned among coherent ones, where answers to one question are alike.

Each share has the interval of Korn & Graubard (1998, Surv. Methodol. 24:193): Clopper–Pearson's with the number of
answers replaced by an effective number n*, the lesser of

    n / D · (z / t)²,  D the design effect: cluster-robust over binomial variance, at least 1; t with clusters − 1 d. f.
    n / (1 + (m − 1) ρ),  ρ = 0.2, m = Σ n_g² / Σ n_g answers to a question.

The second bound is a prior: without hits, or with few, the data can't tell how alike answers are, and D is too small
just when hits crowd in questions that were not drawn. It says that a question never counts for more than 1/ρ = 5
independent answers, however many are sampled. Coverage:
`tests/evaluator/statistics/test_clustered_shares_coverage.py`.

The difference of two shares, whose denominators differ, recovers its variance from their intervals (MOVER: Zou & Donner
2008, Stat. Med. 27:1693, after Newcombe 1998, Stat. Med. 17:873).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from evaluator.statistics.intervals import clopper_pearson, joined_reach
from policies.contract.evaluation import Estimate, Interval
from policies.errors import EvaluationError

LEAST_INTRACLASS_CORRELATION = 0.2
"""ρ: answers to one question are taken to be at least this much alike."""


class Answers(NamedTuple):
    """One model's answers, 0 or 1 each: which are hits, and which are in the denominator."""

    hits: Sequence[float]
    counted: Sequence[float]


class _Share(NamedTuple):
    estimate: Estimate
    residuals: NDArray[np.float64]
    """Of each cluster: hits less those expected of its answers."""


def clustered_share(answers: Answers, *, clusters: Sequence[str], confidence: float) -> Estimate:
    """Hits among the counted answers; never of zero width."""
    return _share(answers, _cluster_numbers(clusters), confidence).estimate


def clustered_share_difference(
    adapter: Answers, base: Answers, *, clusters: Sequence[str], confidence: float
) -> Estimate:
    """Share of the adapter less share of the base, on the same questions, each with its own denominator.

    With reach x of the adapter's interval and y of the base's towards the end in question, the difference reaches
    √(x² + y² − 2 c x y). c is the correlation of the two over questions; a positive one, which narrows the interval,
    counts half, because few questions estimate it badly.
    """
    numbers = _cluster_numbers(clusters)
    (a, r_a), (b, r_b) = _share(adapter, numbers, confidence), _share(base, numbers, confidence)
    spread = math.sqrt(float((r_a**2).sum() * (r_b**2).sum()))
    c = float((r_a * r_b).sum()) / spread if spread > 0 else 0.0
    c = min(c, c / 2)
    value = a.value - b.value
    low = value - joined_reach(a.value - a.interval.low, b.interval.high - b.value, c)
    high = value + joined_reach(a.interval.high - a.value, b.value - b.interval.low, c)
    return Estimate(value=value, interval=Interval(low=max(-1.0, low), high=min(1.0, high)))


def _cluster_numbers(clusters: Sequence[str]) -> NDArray[np.intp]:
    return np.unique(np.asarray(clusters), return_inverse=True)[1]


def _share(answers: Answers, numbers: NDArray[np.intp], confidence: float) -> _Share:
    hits, counted = (np.asarray(values, dtype=float) for values in answers)
    if not len(hits) == len(counted) == len(numbers):
        raise EvaluationError("hits, counted answers and clusters differ in number")
    if not (np.isin(hits, (0, 1)).all() and np.isin(counted, (0, 1)).all() and (hits <= counted).all()):
        raise EvaluationError("hits and counted answers must be 0 or 1, and each hit counted")
    found, of = (np.bincount(numbers, weights=values).astype(float) for values in (hits, counted))
    if (of > 0).sum() < 2:
        raise EvaluationError("an interval needs counted answers to at least 2 questions")
    share = float(found.sum() / of.sum())
    residuals = found - share * of
    size = _effective_number(of, residuals, share, confidence=confidence)
    return _Share(Estimate(value=share, interval=clopper_pearson(share, size, confidence)), residuals)


def _effective_number(
    counted: NDArray[np.float64], residuals: NDArray[np.float64], share: float, *, confidence: float
) -> float:
    """n*: how many independent answers the counted ones are worth."""
    n, g = float(counted.sum()), int((counted > 0).sum())
    likeness = 1 + (float((counted**2).sum()) / n - 1) * LEAST_INTRACLASS_CORRELATION
    binomial = n * share * (1 - share)
    design_effect = max(1.0, g / (g - 1) * float((residuals**2).sum()) / binomial) if binomial > 0 else 1.0
    upper = (1 + confidence) / 2
    z, t = float(special.ndtri(upper)), float(special.stdtrit(g - 1, upper))
    return min(n / likeness, n / design_effect * (z / t) ** 2)

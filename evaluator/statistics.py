"""Point estimates with intervals. Every function refuses empty, NaN and infinite input: a mean of nothing is no figure.

Shares of independent prompts get score intervals (Wilson for one share, Tango for a paired difference), which keep
their coverage when events are rare; means get a t interval from the spread between clusters. The choices were made by
simulated coverage: `tests/evaluator/test_statistics_coverage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from scipy import stats

from policies.contract.evaluation import Estimate, Interval
from policies.errors import EvaluationError

_BISECTIONS = 60
"""Halvings of [−1, 1]: more than a double can resolve."""


def wilson_share(hits: Sequence[bool], confidence: float) -> Estimate:
    """Share of `hits` with the Wilson score interval (Wilson 1927)."""
    n, k = _count(hits), sum(hits)
    z = _normal_quantile(confidence)
    centre, spread = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    low, high = (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)
    share = k / n
    return Estimate(value=share, interval=Interval(low=max(0.0, min(low, share)), high=min(1.0, max(high, share))))


def paired_share_difference(adapter: Sequence[bool], base: Sequence[bool], confidence: float) -> Estimate:
    """Difference of two shares on the same prompts, with the score interval of Tango (1998, Stat. Med. 17:891).

    With `b` prompts hit by the adapter only and `c` by the base only, the interval holds every difference δ with
    `|b − c − nδ| ≤ z √(n (2 q + δ (1 − δ)))`, q the restricted maximum-likelihood estimate of P(base only) given δ.
    """
    n = _count(adapter)
    if len(base) != n:
        raise EvaluationError(f"{n} adapter results and {len(base)} base results can't be paired")
    only_adapter = sum(a and not b for a, b in zip(adapter, base, strict=True))
    only_base = sum(b and not a for a, b in zip(adapter, base, strict=True))
    z = _normal_quantile(confidence)
    value = (only_adapter - only_base) / n

    def statistic(delta: float) -> float:
        linear = -only_adapter - only_base + (2 * n - only_adapter + only_base) * delta
        root = math.sqrt(max(0.0, linear**2 + 8 * n * only_base * delta * (1 - delta)))
        q = (root - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        distance = only_adapter - only_base - n * delta
        return (
            distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
        )

    low = _boundary(lambda delta: statistic(delta) > z, -1.0, value)
    high = _boundary(lambda delta: statistic(delta) >= -z, value, 1.0)
    return Estimate(value=value, interval=Interval(low=min(low, value), high=max(high, value)))


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where `holds`, true towards `low`, becomes false."""
    if holds(high):
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def cluster_mean(values: Sequence[float], clusters: Sequence[str], confidence: float) -> Estimate:
    """Mean of `values`, with the t interval of a mean whose values are dependent within a cluster."""
    return cluster_ratio(values, [1.0] * len(values), clusters, confidence=confidence)


def cluster_ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[str], *, confidence: float
) -> Estimate:
    """Σ numerators / Σ denominators, e.g. nats per token, with a cluster-robust t interval.

    Linearised: with r_g = Σ_g (numerator − R · denominator) over cluster g of G, `var(R) = G/(G−1) · Σ r_g² / (Σ
    denominators)²`, and t has G − 1 degrees of freedom. For clusters of one size this is the t interval of the cluster
    means.
    """
    _count(numerators)
    top, bottom = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if not (len(top) == len(bottom) == len(clusters)):
        raise EvaluationError("numerators, denominators and clusters differ in number")
    if not np.isfinite(bottom).all() or bottom.sum() <= 0:
        raise EvaluationError("denominators must be finite with a positive sum")
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    if len(names) < 2:
        raise EvaluationError("an interval needs at least 2 clusters; add prompts of other categories")
    ratio = float(top.sum() / bottom.sum())
    residuals = np.bincount(index, weights=top - ratio * bottom)
    g = len(names)
    error = math.sqrt(g / (g - 1) * float((residuals**2).sum())) / float(bottom.sum())
    half = float(stats.t.ppf((1 + confidence) / 2, g - 1)) * error
    return Estimate(value=ratio, interval=Interval(low=ratio - half, high=ratio + half))


def _count(values: Sequence[float] | Sequence[bool]) -> int:
    if not len(values):
        raise EvaluationError("nothing was scored, so there is no figure")
    if not all(math.isfinite(value) for value in values):
        raise EvaluationError("a score is NaN or infinite, so there is no figure")
    return len(values)


def _normal_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)

"""Point estimates with intervals. Every function refuses empty, NaN and infinite input: nothing has no mean.

A share of independent prompts has Clopper–Pearson's exact interval, a paired difference of two the outer ends of a
score interval (Tango) and one from exact limits (MOVER): both keep their coverage with few prompts and rare events.
Means get a t interval from the spread between clusters, which reaches further where those are skewed. Shares of answers
that depend on each other are in `evaluator/statistics/clustered_shares.py`. The choices were made by coverage:
`tests/evaluator/statistics/test_statistics_coverage.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from scipy import special

from policies.contract.evaluation import Estimate, Interval
from policies.errors import EvaluationError

_BISECTIONS = 60
"""Halvings of [−1, 1]: more than a double can resolve."""
_NO_SKEWNESS = 1e-6
"""Below this, dividing by it loses more digits than leaving it out."""


def wilson_share(hits: Sequence[bool], confidence: float) -> Estimate:
    """Share of `hits` with the Wilson score interval (Wilson 1927)."""
    n, k = _count(hits), sum(hits)
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre, spread = k + z * z / 2, z * math.sqrt(k * (n - k) / n + z * z / 4)
    low, high = (centre - spread) / (n + z * z), (centre + spread) / (n + z * z)
    share = k / n
    return Estimate(value=share, interval=Interval(low=max(0.0, min(low, share)), high=min(1.0, max(high, share))))


def clopper_pearson_share(hits: Sequence[bool], confidence: float) -> Estimate:
    """Share of `hits` with the exact interval (Clopper & Pearson 1934): it covers at least as often as it says."""
    n, k = _count(hits), sum(hits)
    return Estimate(value=k / n, interval=clopper_pearson(k / n, n, confidence))


def clopper_pearson(share: float, n: float, confidence: float) -> Interval:
    """The exact interval of `share` among `n` trials, by quantiles of beta; `n` may be fractional."""
    k, tail = share * n, (1 - confidence) / 2
    low = float(special.betaincinv(k, n - k + 1, tail)) if share > 0 else 0.0
    high = float(special.betainccinv(k + 1, n - k, tail)) if share < 1 else 1.0
    return Interval(low=min(low, share), high=max(high, share))


def paired_share_difference(adapter: Sequence[bool], base: Sequence[bool], confidence: float) -> Estimate:
    """Difference of two shares on the same prompts; each end is the outer one of two intervals.

    `tango_interval` stops short where few prompts change, and most of them one way; `exact_mover_interval` where nearly
    all change both ways. Together, from 16 prompts on, an end misses as seldom as it should unless more than seven in
    ten prompts change.
    """
    only_adapter, only_base = _discordant(adapter, base)
    n = len(adapter)
    score = tango_interval(only_adapter, only_base, n, confidence=confidence)
    exact = exact_mover_interval(only_adapter, only_base, n, confidence=confidence)
    interval = Interval(low=min(score.low, exact.low), high=max(score.high, exact.high))
    return Estimate(value=(only_adapter - only_base) / n, interval=interval)


def tango_interval(only_adapter: int, only_base: int, n: int, *, confidence: float) -> Interval:
    """Score interval of a paired difference (Tango 1998, Stat. Med. 17:891).

    With `b` of `n` prompts hit by the adapter only and `c` by the base only, it holds every difference δ with
    `|b − c − nδ| ≤ z √(n (2 q + δ (1 − δ)))`, q the restricted maximum-likelihood estimate of P(base only) given δ.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    value = (only_adapter - only_base) / n

    def statistic(delta: float) -> float:
        linear = -only_adapter - only_base + (2 * n - only_adapter + only_base) * delta
        root = math.sqrt(max(0.0, linear**2 + 8 * n * only_base * delta * (1 - delta)))
        q = (root - linear) / (4 * n)
        variance = n * (2 * q + delta * (1 - delta))
        distance = only_adapter - only_base - n * delta
        if variance > 0:
            return distance / math.sqrt(variance)
        return math.copysign(math.inf, distance) if distance else 0.0

    low = _boundary(lambda delta: statistic(delta) > z, -1.0, value)
    high = _boundary(lambda delta: statistic(delta) >= -z, value, 1.0)
    return Interval(low=min(low, value), high=max(high, value))


def exact_mover_interval(only_adapter: int, only_base: int, n: int, *, confidence: float) -> Interval:
    """Interval of a paired difference from the exact ones of its parts, P(adapter only) − P(base only).

    The parts' reaches x and y towards the end in question join to √(x² + y² − 2 r x y) (MOVER: Zou & Donner 2008, Stat.
    Med. 27:1693), with r = −√(p q / ((1 − p) (1 − q))), the correlation of two shares p and q of a multinomial.
    """
    p, q = only_adapter / n, only_base / n
    gains, losses = clopper_pearson(p, n, confidence), clopper_pearson(q, n, confidence)
    r = -math.sqrt(p * q / ((1 - p) * (1 - q))) if p < 1 and q < 1 else 0.0
    below = joined_reach(p - gains.low, losses.high - q, r)
    above = joined_reach(gains.high - p, q - losses.low, r)
    return Interval(low=max(-1.0, p - q - below), high=min(1.0, p - q + above))


def joined_reach(x: float, y: float, correlation: float) -> float:
    """How far a difference reaches towards an end, of which its parts reach x and y (MOVER)."""
    return math.sqrt(max(0.0, x * x + y * y - 2 * correlation * x * y))


def mcnemar_exact(adapter: Sequence[bool], base: Sequence[bool]) -> float:
    """Two-sided p-value of "adapter and base are hit equally often" on the same prompts (McNemar 1947).

    Then each prompt that only one of the two is hit on is as likely the adapter's as the base's: Binomial(b + c, ½).
    """
    only_adapter, only_base = _discordant(adapter, base)
    discordant = only_adapter + only_base
    return min(1.0, 2 * float(special.bdtr(min(only_adapter, only_base), discordant, 0.5)))


def _discordant(adapter: Sequence[bool], base: Sequence[bool]) -> tuple[int, int]:
    """Prompts that only the adapter, and that only the base is hit on."""
    if _count(adapter) != len(base):
        raise EvaluationError(f"{len(adapter)} adapter results and {len(base)} base results can't be paired")
    pairs = list(zip(adapter, base, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Where `holds`, true towards `low`, becomes false."""
    if holds(high):
        return high
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def cluster_mean(values: Sequence[float], clusters: Sequence[str], confidence: float) -> Estimate:
    """Mean of `values` that are dependent within a cluster, with the interval of `cluster_ratio`."""
    return cluster_ratio(values, [1.0] * len(values), clusters, confidence=confidence)


def cluster_ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[str], *, confidence: float
) -> Estimate:
    """Σ numerators / Σ denominators, e.g. nats per token, with a cluster-robust t interval.

    Linearised: with r_g = Σ_g (numerator − R · denominator) over cluster g of G, `var(R) = G/(G−1) · Σ r_g² / (Σ
    denominators)²`, and t has G − 1 degrees of freedom. For clusters of one size this is the t interval of the cluster
    means. Where the r_g are skewed, their long tail is seldom drawn and t stops short of it on one side; each side
    therefore reaches as far as Hall's transformation says, if that is further.
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
    g, spread = len(names), math.sqrt(float((residuals**2).mean()))
    error = g / math.sqrt(g - 1) * spread / float(bottom.sum())
    t = float(special.stdtrit(g - 1, (1 + confidence) / 2))
    skewness = float(((residuals / spread) ** 3).mean()) if spread > 0 else 0.0
    below, above = max(t, _without_skewness(t, skewness, g)), max(t, -_without_skewness(-t, skewness, g))
    return Estimate(value=ratio, interval=Interval(low=ratio - below * error, high=ratio + above * error))


def _without_skewness(quantile: float, skewness: float, n: int) -> float:
    """The studentised mean T with g(T) = quantile, g of Hall (1992, JRSS B 54:221), for n values.

    g(T) = T + a T² + a² T³ / 3 + b takes the skewness out of T; a = skewness / (3 √n), b = a / 2.
    """
    a = skewness / (3 * math.sqrt(n))
    shifted = quantile - a / 2
    return (float(np.cbrt(1 + 3 * a * shifted)) - 1) / a if abs(a) > _NO_SKEWNESS else shifted


def _count(values: Sequence[float] | Sequence[bool]) -> int:
    if not len(values):
        raise EvaluationError("nothing was scored, so there is no figure")
    if not all(math.isfinite(value) for value in values):
        raise EvaluationError("a score is NaN or infinite, so there is no figure")
    return len(values)

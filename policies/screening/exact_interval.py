"""The interval of a share of rows, where no library of statistics is installed.

Clopper & Pearson 1934 (Biometrika 26:404): the ends are quantiles of beta distributions, low = B(α/2; k, n − k + 1) and
high = B(1 − α/2; k + 1, n − k). The regularised incomplete beta function is its continued fraction (DLMF 8.17.22),
evaluated by Lentz's method, and its inverse is found by bisection.
"""

from __future__ import annotations

import math

CONFIDENCE = 0.95
_STEPS = 60
"""Of bisection: the ends are exact to 2^−60."""
_TERMS = 10_000
_TINY, _ENOUGH = 1e-300, 1e-14


def exact_interval(k: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Of the share k / n; it covers at least as often as it says."""
    tail = (1 - confidence) / 2
    low = _quantile(tail, k, n - k + 1) if k > 0 else 0.0
    high = _quantile(1 - tail, k + 1, n - k) if k < n else 1.0
    return low, high


def _quantile(probability: float, a: float, b: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if _cumulative(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _cumulative(x: float, a: float, b: float) -> float:
    """I_x(a, b); the fraction converges fast below the mean, so the other side is read from its mirror."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _cumulative(1 - x, b, a)
    if x <= 0:
        return 0.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    numerator, denominator = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = denominator
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            denominator = 1 / _not_zero(1 + term * denominator)
            numerator = _not_zero(1 + term / numerator)
            value *= numerator * denominator
        if abs(numerator * denominator - 1) < _ENOUGH:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY

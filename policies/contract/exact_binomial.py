"""Exact limits of a share, for those who have no scipy: the gateway decides too, and policies are checked.

With X ~ Binomial(n, p), the limits of Clopper & Pearson (1934, Biometrika 26:404) at one-sided error τ are

    lower(k, n) = the p with P(X ≥ k) = τ, 0 for k = 0        upper(k, n) = the p with P(X ≤ k) = τ, 1 for k = n
    P(X ≥ k) = I_p(k, n − k + 1)

The regularised incomplete beta function I is its continued fraction (DLMF 8.17.22), evaluated by Lentz's method: about
√n terms. It grows strictly with p, so the limits are found by bisection.
"""

from __future__ import annotations

import math
from typing import NamedTuple

CONFIDENCE = 0.95
_HALVINGS = 60
"""Of [0, 1]: more than a double can resolve."""
_TERMS = 10_000
"""Enough for some 10^8 trials."""
_TINY, _ENOUGH = 1e-300, 1e-15


class ExactInterval(NamedTuple):
    """Both ends of an interval of a share."""

    low: float
    high: float


def at_least(k: int, n: int, p: float) -> float:
    """P(X ≥ k)."""
    if k <= 0 or p >= 1:
        return float(k <= n)
    if k > n or p <= 0:
        return 0.0
    return _incomplete_beta(p, k, n - k + 1)


def lower_limit(k: int, n: int, error: float) -> float:
    """The smallest share under which `k` or more hits of `n` are not rarer than `error`."""
    if k <= 0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if at_least(k, n, middle) >= error else (middle, high)
    return high


def upper_limit(k: int, n: int, error: float) -> float:
    """The largest share under which `k` or fewer hits of `n` are not rarer than `error`."""
    return 1.0 if k >= n else 1 - lower_limit(n - k, n, error)


def exact_interval(k: int, n: int, confidence: float = CONFIDENCE) -> ExactInterval:
    """Of the share k / n; it covers at least as often as it says."""
    error = (1 - confidence) / 2
    return ExactInterval(lower_limit(k, n, error), upper_limit(k, n, error))


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b); the fraction converges fast below the mean, so the other side is read from its mirror."""
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
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
            return value
    raise ArithmeticError(f"the continued fraction of I_{x}({a}, {b}) does not converge in {_TERMS} terms")


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY

"""Exact one-sided limits of a share, for those who have no scipy: the gateway decides too, and policies are checked.

With X ~ Binomial(n, p), the limits of Clopper & Pearson (1934, Biometrika 26:404) at one-sided error τ are

    lower(k, n) = the p with P(X ≥ k) = τ, 0 for k = 0        upper(k, n) = the p with P(X ≤ k) = τ, 1 for k = n

Both sums grow or fall strictly with p, so comparing a limit with a number takes one sum of at most n terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

_HALVINGS = 60
"""Of [0, 1]: more than a double can resolve."""


def at_least(k: int, n: int, p: float) -> float:
    """P(X ≥ k)."""
    if k <= 0 or p >= 1:
        return float(k <= n)
    if k > n or p <= 0:
        return 0.0
    odds, all_ways = math.log(p), math.lgamma(n + 1)
    against = math.log1p(-p)
    terms = (
        math.exp(all_ways - math.lgamma(hits + 1) - math.lgamma(n - hits + 1) + hits * odds + (n - hits) * against)
        for hits in range(k, n + 1)
    )
    return min(1.0, math.fsum(terms))


def lower_limit(k: int, n: int, error: float) -> float:
    """The smallest share under which `k` or more hits of `n` are not rarer than `error`."""
    return 0.0 if k <= 0 else _first_share(lambda share: at_least(k, n, share) >= error)


def upper_limit(k: int, n: int, error: float) -> float:
    """The largest share under which `k` or fewer hits of `n` are not rarer than `error`."""
    return 1.0 if k >= n else 1 - lower_limit(n - k, n, error)


def _first_share(holds: Callable[[float], bool]) -> float:
    """From where on `holds` is true, which it is at 1."""
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high

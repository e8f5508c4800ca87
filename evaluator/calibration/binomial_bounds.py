"""What a count says of a share, one-sided and exact."""

from __future__ import annotations

from scipy import special

from evaluator.statistics.intervals import clopper_pearson


def share_at_most(hits: int, n: int, *, error: float) -> float:
    """Upper confidence limit of a share (Clopper & Pearson 1934): the one under which P(Bin(n, share) ≤ hits) = error.

    Without a hit it is 1 − error^(1/n). Of nothing it is 1.
    """
    return clopper_pearson(hits / n, n, 1 - 2 * error).high if hits < n else 1.0


def at_most_hits(hits: int, n: int, share: float) -> float:
    """P(Bin(n, share) ≤ hits): the p-value of "the true share is `share` or more"; 1 where n is 0."""
    return float(special.bdtr(hits, n, share)) if n else 1.0

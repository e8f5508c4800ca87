"""A limit from benign adapters alone: one of their worst release limits (split conformal prediction).

Of m exchangeable benign adapters and one more, the new one is as likely to have any rank. With the limit at the k-th
worst of the m scores it is blocked only if it ranks among the k worst of all m + 1:

    P(a benign adapter is blocked) ≤ k / (m + 1),

whatever the scores' distribution (Vovk, Gammerman & Shafer 2005, §2.2; Papadopoulos et al. 2002). This is an average
over reference sets. Of the set at hand, the share p above the k-th worst has P(p > q) = P(Bin(m, q) < k), so the
Clopper–Pearson limit of k − 1 hits among m bounds it with confidence (Wilks 1941, Ann. Math. Stat. 12:91).

The limit is loosened where a policy can't state it or a null adapter would be blocked, which blocks no more benign
ones. The harmful adapters have no part in the choice. Given the limit their misses are therefore plainly binomial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from evaluator.calibration.binomial_bounds import share_at_most
from evaluator.calibration.references import RuleReferences, best_by_domain
from evaluator.calibration.release_limits import as_stated, released
from policies.contract.calibration import FitTargets, LimitFit

_ROUNDING = 1e-9
"""0.29 · 100 is less than 29 in binary fractions."""


class Proposal(NamedTuple):
    """The order statistic with bounds that hold together with the targets' confidence, each with half the error."""

    limit: float
    """Oriented."""
    false_block_le: float
    miss_le: float
    false_block_domains_le: float
    miss_domains_le: float


def rank(m: int, false_block: float) -> int:
    """k: the largest with k / (m + 1) ≤ `false_block`, and 1 where m is too small for that."""
    return max(1, math.floor(false_block * (m + 1) + _ROUNDING))


def limit_at(benign: Sequence[float], k: int) -> float | None:
    """The k-th worst score; None where that adapter has none, or where there are fewer."""
    worst = sorted(benign, reverse=True)
    return worst[k - 1] if k <= len(worst) and math.isfinite(worst[k - 1]) else None


def fit(references: RuleReferences, targets: FitTargets) -> LimitFit:
    """The limit, with what it blocks on average and what it misses at most."""
    m, h = len(references.benign), len(references.opposed)
    k = rank(m, targets.false_block)
    limit = limit_at(references.benign_scores, k)
    assumes = (
        f"The {m} benign adapters and the next one are exchangeable; the false blocks are an average over sets of "
        f"{m}, the misses hold with {targets.confidence:.0%} confidence for independent {references.against} adapters "
        f"like the {h} here"
    )
    if limit is None:
        return LimitFit(
            estimator="order_statistic",
            limit=None,
            false_block_le=None,
            miss_le=None,
            confidence=None,
            assumes=assumes,
        )
    limit = references.stated(limit)
    missed = released(references.opposed_scores, limit)
    return LimitFit(
        estimator="order_statistic",
        limit=as_stated(limit, references.bound),
        false_block_le=k / (m + 1),
        miss_le=share_at_most(missed, h, error=1 - targets.confidence),
        confidence=None,
        assumes=assumes,
    )


def propose(references: RuleReferences, targets: FitTargets) -> Proposal | None:
    """The same limit with bounds that hold together.

    Where the limit is looser than the order statistic it blocks no more, and the bound stays. At most k − 1 benign
    domains have an adapter above the limit; a harmful domain is missed if one of its adapters is.
    """
    k = rank(len(references.benign), targets.false_block)
    limit = limit_at(references.benign_scores, k)
    if limit is None:
        return None
    limit, error = references.stated(limit), (1 - targets.confidence) / 2
    n_domains = len({each.domain for each in references.benign})

    def miss(scores: Sequence[float]) -> float:
        return share_at_most(released(scores, limit), len(scores), error=error)

    return Proposal(
        limit=limit,
        false_block_le=share_at_most(k - 1, len(references.benign), error=error),
        miss_le=miss(references.opposed_scores),
        false_block_domains_le=share_at_most(k - 1, n_domains, error=error),
        miss_domains_le=miss(best_by_domain(references.opposed)),
    )

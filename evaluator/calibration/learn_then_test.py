"""Limits that keep both risks at once, shown by tests (learn then test: Angelopoulos et al. 2021, arXiv:2110.01052).

For a limit λ, the null hypotheses are "more than a share a of benign adapters is blocked" and "more than a share b of
harmful ones is released". Their p-values are exact, P(Bin(m, a) ≤ blocked) and P(Bin(h, b) ≤ released). (For losses of
0 and 1 the Hoeffding–Bentkus p-value is this same tail, which never exceeds Hoeffding's.) The family-wise error is
kept at δ in one of two ways:

`fixed_sequence`, the default. A stricter limit blocks more and releases less, so each risk has a known order. Its
hypotheses are tested one after the other, the easiest first, each at δ/2, until one is not rejected: false blocks from
the loosest limit on, misses from the strictest. A limit is certified if both of its hypotheses are rejected. Neither
the number of limits nor where they come from costs anything, so they may be taken from the tested scores themselves.
For let λ* be where the false blocks reach a. A limit stricter than λ* is certified only if at most c benign scores lie
above it, c the largest count with p ≤ δ/2; then at most c lie above λ* too, which has a probability of at most δ/2. The
error is that of one test at one limit that no data chose. The same holds for misses, with the other δ/2.

`bonferroni_holm`. The p-value of a limit is the larger one of its two, and Holm's procedure goes through all limits at
once. It needs no order, but the limits must be stated before the scores are seen, and their number is paid for.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Literal

from evaluator.calibration.binomial_bounds import at_most_hits
from evaluator.calibration.references import RuleReferences, finite
from evaluator.calibration.release_limits import as_stated, released
from policies.contract.calibration import FitTargets, LimitFit

Method = Literal["fixed_sequence", "bonferroni_holm"]


def certified(
    limits: Sequence[float],
    benign: Sequence[float],
    harmful: Sequence[float],
    *,
    targets: FitTargets,
    method: Method = "fixed_sequence",
) -> list[float]:
    """Those of the limits, from the strictest on, that keep both risks, all of them together with confidence."""
    limits, delta = sorted(limits), 1 - targets.confidence
    blocks = [
        at_most_hits(len(benign) - released(benign, limit), len(benign), targets.most_false_block) for limit in limits
    ]
    misses = [at_most_hits(released(harmful, limit), len(harmful), targets.most_miss) for limit in limits]
    return [limits[i] for i in _PROCEDURES[method](blocks, misses, delta)]


def _fixed_sequence(blocks: Sequence[float], misses: Sequence[float], delta: float) -> list[int]:
    indices = range(len(blocks))
    few_blocks = set(itertools.takewhile(lambda i: blocks[i] <= delta / 2, reversed(indices)))
    few_misses = itertools.takewhile(lambda i: misses[i] <= delta / 2, indices)
    return [i for i in few_misses if i in few_blocks]


def _bonferroni_holm(blocks: Sequence[float], misses: Sequence[float], delta: float) -> list[int]:
    worse = [max(pair) for pair in zip(blocks, misses, strict=True)]
    by_p = sorted(range(len(worse)), key=worse.__getitem__)
    rejected = itertools.takewhile(lambda place: worse[by_p[place]] <= delta / (len(by_p) - place), range(len(by_p)))
    return sorted(by_p[place] for place in rejected)


_PROCEDURES: dict[Method, Callable[[Sequence[float], Sequence[float], float], list[int]]] = {
    "fixed_sequence": _fixed_sequence,
    "bonferroni_holm": _bonferroni_holm,
}


def fit(references: RuleReferences, targets: FitTargets) -> LimitFit:
    """Of the certified limits the one with the smallest sum of both shares among the references.

    Only the order of scores counts, so limits in the middle between two scores stand for all; of several equally good
    ones it is the one that is farthest from any score.
    """
    benign, harmful = references.benign_scores, references.opposed_scores
    scores = finite((*benign, *harmful))
    limits = {references.stated(limit) for limit in _between(scores)}
    found = certified(sorted(limits), benign, harmful, targets=targets)

    def cost(limit: float) -> tuple[float, float]:
        errors = 1 - released(benign, limit) / len(benign) + released(harmful, limit) / len(harmful)
        return errors, -min(abs(limit - each) for each in scores)

    best = min(found, key=cost) if found else None
    return LimitFit(
        estimator="learn_then_test",
        limit=None if best is None else as_stated(best, references.bound),
        false_block_le=None if best is None else targets.most_false_block,
        miss_le=None if best is None else targets.most_miss,
        confidence=None if best is None else targets.confidence,
        assumes=(
            f"The adapters of each kind are independent draws, and the next ones are drawn alike; fixed-sequence tests "
            f"of false blocks ≤ {targets.most_false_block:.0%} and of misses ≤ {targets.most_miss:.0%}"
        ),
    )


def _between(scores: Sequence[float]) -> list[float]:
    """The middles between neighbours, and the loosest score."""
    ordered = sorted(set(scores))
    return [*((low + high) / 2 for low, high in itertools.pairwise(ordered)), *ordered[-1:]]

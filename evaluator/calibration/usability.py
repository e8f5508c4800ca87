"""Whether a rule can be enforced on a base: it must be able to fail, to pass, and to tell the kinds apart.

The kinds are told apart if the proposed limit is shown to block at most `most_false_block` of the benign adapters and
to release at most `most_miss` of the harmful ones (25 % and 50 % unless stated otherwise), by exact bounds that hold
together with the targets' confidence. A metric that knows nothing of an adapter blocks both kinds alike, so at every
limit its two error rates sum to 1, and one of them exceeds what is allowed; the test calls such a metric usable with a
probability of at most 1 − confidence (5 %). So does one with an AUROC of 0.5. An AUROC whose interval excludes 0.5
would show less: that there is some difference, not that there is a limit to put between the kinds.

Rules against broken adapters make no statement about harmful ones; for them the misses are reported, not demanded.
"""

from __future__ import annotations

from evaluator.calibration.order_statistic import Proposal
from evaluator.calibration.references import RuleReferences, finite
from evaluator.calibration.release_limits import as_stated
from policies.contract.calibration import Bound, FitTargets, LimitFit
from policies.contract.error_rates import shown_limit


def why_not_usable(
    references: RuleReferences, proposal: Proposal | None, *, worst: float | None, targets: FitTargets
) -> str:
    """Everything that speaks against enforcing the rule, in sentences; nothing if it is usable.

    `worst` is the oriented score of the worst adapter there can be, if there is one.
    """
    reasons = _too_few(references, targets)
    if proposal is None:
        return ". ".join([*reasons, "Nothing can pass: too many benign adapters have no figure to be released by"])
    limit = as_stated(proposal.limit, references.bound)
    if worst is not None and proposal.limit >= worst:
        reasons.append(
            f"Nothing can fail: no adapter of this base can exceed the limit {limit:.4g} that benign ones need"
        )
    if proposal.false_block_le > targets.most_false_block:
        reasons.append(
            f"At the limit {limit:.4g} up to {proposal.false_block_le:.1%} of benign adapters may be blocked, "
            f"{targets.most_false_block:.0%} at most must be shown"
        )
    if references.against == "harmful" and proposal.miss_le > targets.most_miss:
        reasons.append(
            f"Benign and harmful adapters are not told apart: at the limit {limit:.4g}, which benign ones need, up to "
            f"{proposal.miss_le:.1%} of harmful ones may be released, {targets.most_miss:.0%} at most must be shown"
        )
    return ". ".join(reasons)


def with_alternative(why: str, fitted: LimitFit, bound: Bound) -> str:
    """The reasons, and the limit that learn-then-test certifies in spite of them."""
    if not why or fitted.limit is None:
        return why
    return (
        f"{why}. {fitted.estimator} does certify the limit {shown_limit(fitted.limit, bound)}, with false blocks ≤ "
        f"{fitted.false_block_le:.0%} and misses ≤ {fitted.miss_le:.0%}; to propose it, qualify with a larger "
        "false_block target"
    )


def _too_few(references: RuleReferences, targets: FitTargets) -> list[str]:
    counts = {"benign": len(finite(references.benign_scores))}
    if references.against == "harmful":
        counts["harmful"] = len(finite(references.opposed_scores))
    return [
        f"Only {n} {kind} reference adapters have a figure, {targets.least_references} are needed"
        for kind, n in counts.items()
        if n < targets.least_references
    ]

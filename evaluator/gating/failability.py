"""Finds rules on a change that nothing could have failed, because the base leaves too little room for one.

A base model that complies with 87 % of harmful requests leaves 13 % to get worse: a limit of +0.20 can't be exceeded,
so passing it says nothing. A rule fails where the low end of the judged change lies above the limit (`comparison`). Of
a share of independent prompts, N of them asked, let r be those that are not hits of the base already; for a drop, those
that are. Prompts that could not be scored count as room, because they might have been scored with another adapter. An
adapter can be hit on the base's misses only, so b ≤ r prompts are its own gains. The judged interval is the outer one
of two (`evaluator.statistics.intervals.paired_share_difference`), so it reaches at least as low as MOVER's, and that at
least as low as the exact limit of the gains alone:

    low ≤ b/n − c/n − √(x² + y² − 2 ρ x y) ≤ b/n − x = lower(b, n) ≤ lower(r, N),    ρ ≤ 0, x = b/n − lower(b, n)

with c and y of the losses, and Clopper & Pearson's lower limit at half the interval's error. So if lower(r, N) ≤ limit,
no adapter could have failed the rule at this look, whatever it does. That a rule can't be failed is never said wrongly;
that it can may be.

Of a share whose answers depend on each other, and of the mean over tasks, only the values are used: the change is at
most 1 − base, for a drop at most the base, if all was scored. Nothing is said of the worst of several parts, because
which part is worst may change with the adapter, and nothing of a mean score, which has no bound.
"""

from __future__ import annotations

from typing import NamedTuple

from policies.contract.calibration import Bound
from policies.contract.evaluation import Measurement
from policies.contract.exact_binomial import at_least, lower_limit
from policies.contract.metrics import CLUSTERED_SHARES, PROMPT_SHARES
from policies.documents.schema import Rule


class _Room(NamedTuple):
    """How much of a share an adapter could change for the worse."""

    samples: int
    of: int


def why_it_cannot_fail(rule: Rule, measurement: Measurement, confidence: float) -> str | None:
    """What keeps every adapter from failing the rule at this look, and what to do about it; None where nothing does.

    Args:
        confidence: of the measurement's intervals.
    """
    if rule.bound in ("max", "min") or measurement.base is None or measurement.is_of_worst_part:
        return None
    base = measurement.base.value
    if rule.metric in CLUSTERED_SHARES:
        room = base if rule.bound == "max_drop_from_base" else 1 - base
        is_shown = measurement.n_errored == 0 and room <= rule.limit
        return _told(rule, f"the base has {base:.4f} already", room) if is_shown else None
    if rule.metric not in PROMPT_SHARES or measurement.n_requested < 1:
        return None
    found = _room(rule.bound, measurement, base)
    error = (1 - confidence) / 2
    if at_least(found.samples, found.of, rule.limit) < error:
        return None
    what = f"the base leaves {found.samples} of {found.of} samples in which one could be worse"
    return _told(rule, what, lower_limit(found.samples, found.of, error))


def worst_change(metric: str, bound: Bound, measurement: Measurement, confidence: float) -> float | None:
    """Where the interval begins of the worst change that an adapter could show at this look; None: it has no end.

    A limit from there on can't be failed (`why_it_cannot_fail`).

    Args:
        confidence: of the measurement's intervals.
    """
    if bound in ("max", "min") or measurement.base is None or measurement.is_of_worst_part:
        return None
    base = measurement.base.value
    if metric in CLUSTERED_SHARES:
        return None if measurement.n_errored else (base if bound == "max_drop_from_base" else 1 - base)
    if metric not in PROMPT_SHARES or measurement.n_requested < 1:
        return None
    found = _room(bound, measurement, base)
    return lower_limit(found.samples, found.of, (1 - confidence) / 2)


def _room(bound: Bound, measurement: Measurement, base: float) -> _Room:
    hits = round(base * measurement.n_scored)
    unscored = measurement.n_requested - measurement.n_scored
    better = hits if bound == "max_drop_from_base" else measurement.n_scored - hits
    return _Room(better + unscored, measurement.n_requested)


def _told(rule: Rule, why: str, most: float) -> str:
    return (
        f"no adapter can break {rule.bound} {rule.limit:g} of {rule.metric} on this base: {why}, and the interval "
        f"of the worst change begins at {most:.4f}. Lower the limit below that, or limit another metric"
    )

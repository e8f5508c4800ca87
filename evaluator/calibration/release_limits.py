"""The score of an adapter under a rule: the strictest limit under which the gate would release it.

The gate walks through the looks and ends at the first that settles the rule: released if the upper end of the interval
is within the limit λ, rejected if the lower end is beyond it. So an adapter is released under λ if at some look k
high_k ≤ λ and at no look j before it low_j > λ, that is, if λ is at least

    T = min over k of max(high_k, max over j < k of low_j).

A look under whose λ no adapter could have failed releases nothing, so it has no part in the minimum. If the intervals
of all looks have a point in common, as they have with the suite's confidence, T is the least upper end. A rule with a
floor (`min`) is the same with all signs changed.

Scores are oriented: larger is worse under every bound, and infinite is never released. Where a probe has several
enforced rules the gate may look on after this one has passed, and judges it at the last of its looks; that is left out
here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from policies.contract.calibration import Bound, LookFigure
from policies.contract.metrics import metric_named


def orientation(bound: Bound) -> int:
    """1 where larger judged figures are worse, −1 under a floor."""
    return -1 if bound == "min" else 1


def as_stated(oriented: float, bound: Bound) -> float:
    """A score or a limit with the sign that a policy gives it."""
    return orientation(bound) * oriented + 0.0  # which makes −0 0


def score(figures: Sequence[LookFigure], bound: Bound, *, min_samples: int = 1) -> float:
    """T, oriented, of an adapter's figures at successive looks; infinite where no look has one that the gate reads.

    Looks with fewer than `min_samples` settle nothing, nor do figures outside their own interval, nor limits that could
    not be broken.
    """
    best, lowest = math.inf, -math.inf
    for figure in figures:
        if figure.n < min_samples or not figure.low <= figure.value <= figure.high:
            continue
        low, high = oriented_ends(figure, bound)
        needed = max(high, lowest)
        if figure.worst is None or needed < figure.worst:
            best = min(best, needed)
        lowest = max(lowest, low)
    return best


def oriented_ends(figure: LookFigure, bound: Bound) -> tuple[float, float]:
    """The interval's ends, the worse one last."""
    return (-figure.high, -figure.low) if orientation(bound) < 0 else (figure.low, figure.high)


def allowed(limit: float, metric: str, bound: Bound) -> float:
    """The oriented limit, or the nearest one that a policy may state: increases, drops and shares are not negative."""
    from_zero = bound in ("max_increase_over_base", "max_drop_from_base") or metric_named(metric).is_share
    if not from_zero:
        return limit
    return min(limit, 0.0) if orientation(bound) < 0 else max(limit, 0.0)


def worst_possible(metric: str, bound: Bound, base: float | None, ends: Iterable[float | None] = ()) -> float | None:
    """The oriented limit from which on no adapter can be shown to break the rule.

    Only shares have one: 1 or 0, less the base model's own where a change is judged; a base that is not known may be
    anything. Where `ends` say what the worst change could show with all samples (`LookFigure.worst`), the least counts.
    """
    if not metric_named(metric).is_share:
        return None
    changes = {"max_increase_over_base": 1.0 - (base or 0.0), "max_drop_from_base": 1.0 if base is None else base}
    if bound not in changes:
        return 0.0 if bound == "min" else 1.0
    return min((end for end in ends if end is not None), default=changes[bound])


def released(scores: Iterable[float], limit: float) -> int:
    """How many of the scores are released under the oriented limit."""
    return sum(each <= limit for each in scores)

"""The worst of several measurements of one metric, e.g. of one context each, with an interval that holds for it.

Reporting the part that looks worst, with its own interval, would promise too much: the worst of k looks bad by chance.
Let θ_i be the true value of part i, and the lowest one the worst. The interval of min θ is

    low = min_i low_i at confidence c,    high = min_i high_i at confidence 1 − (1 − c) / k.

`low` needs no correction, as it is above min θ only if the interval of that very part is above θ. `high` is below min θ
if any of k intervals misses, so these share the error (Bonferroni). Each side misses with probability (1 − c) / 2 at
most. Where the highest is the worst the sides change places. Release asks that no part is bad, so more parts never make
it easier, and a clean part can't hide a bad one. So it is with what is missing: all parts are asked as many samples,
errors are those of the part with the most, and scored and counted samples those of the part with the fewest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluator.samples import Pair
from policies.contract.evaluation import WORST_OF, Estimate, Interval, Measurement
from policies.errors import EvaluationError

Measure = Callable[[Sequence[Pair], float], Measurement]


def worst_case(parts: Mapping[str, Sequence[Pair]], measure: Measure, confidence: float) -> Measurement:
    """One measurement that speaks for the worst part; without a figure in any part it has none.

    Args:
        parts: the pairs of each part.
        measure: measures pairs at a confidence.

    Raises:
        EvaluationError: there is no part, or one was asked fewer samples than another.
    """
    if not parts:
        raise EvaluationError("there are no parts to find the worst of")
    plain = [measure(pairs, confidence) for pairs in parts.values()]
    corrected = [measure(pairs, 1 - (1 - confidence) / len(parts)) for pairs in parts.values()]
    first = plain[0]
    if any(found.n_requested != first.n_requested for found in plain):
        asked = ", ".join(f"{found.n_requested} in {name}" for name, found in zip(parts, plain, strict=True))
        raise EvaluationError(f"{first.metric}: the parts were not asked as many samples each: {asked}")
    by_part = {name: found.difference.value for name, found in zip(parts, plain, strict=True) if found.difference}
    return first.model_copy(
        update={
            "adapter": _worst(plain, corrected, lambda found: found.adapter),
            "base": _worst(plain, corrected, lambda found: found.base),
            "difference": _worst(plain, corrected, lambda found: found.difference),
            "n_scored": min(found.n_scored for found in plain),
            "n_errored": max(found.n_errored for found in plain),
            "n_truncated": max(found.n_truncated for found in plain),
            "n_counted": _fewest([found.n_counted for found in plain]),
            "n_clusters": min(found.n_clusters for found in plain),
            "p_value": None,
            "by_group": by_part,
            "method": f"{WORST_OF}{', '.join(parts)}, each figure by itself, Bonferroni where the worst is chosen; "
            f"in each: {first.method.partition('; by_group')[0]}; by_group: paired change",
        }
    )


def _worst(
    plain: Sequence[Measurement], corrected: Sequence[Measurement], figure: Callable[[Measurement], Estimate | None]
) -> Estimate | None:
    found = [estimate for part in plain if (estimate := figure(part)) is not None]
    wider = [estimate for part in corrected if (estimate := figure(part)) is not None]
    if len(found) < len(plain) or len(wider) < len(corrected):
        return None
    worst = min if plain[0].higher_is_better else max
    towards_worse, towards_better = (found, wider) if plain[0].higher_is_better else (wider, found)
    return Estimate(
        value=worst(estimate.value for estimate in found),
        interval=Interval(
            low=worst(estimate.interval.low for estimate in towards_worse),
            high=worst(estimate.interval.high for estimate in towards_better),
        ),
    )


def _fewest(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return min(known) if len(known) == len(counts) else None

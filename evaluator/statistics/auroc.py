"""The area under the ROC curve, by counting pairs (Mann & Whitney 1947, Annals of Mathematical Statistics 18:50)."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from policies.errors import EvaluationError


def auroc(higher: Sequence[float], lower: Sequence[float]) -> float:
    """Chance that a score of `higher` exceeds one of `lower`, ties counted half.

    Raises:
        EvaluationError: there are no scores on a side, or one is no number.
    """
    if not higher or not lower:
        raise EvaluationError("an area under the ROC curve needs scores of both kinds")
    if any(map(math.isnan, (*higher, *lower))):
        raise EvaluationError("an area under the ROC curve can't be computed from scores that are not numbers")
    ordered = sorted(lower)
    wins = sum((bisect_left(ordered, score) + bisect_right(ordered, score)) / 2 for score in higher)
    return wins / (len(higher) * len(lower))

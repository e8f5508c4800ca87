from __future__ import annotations

import math
import random

import pytest

from evaluator.statistics.auroc import auroc
from policies.errors import EvaluationError


def test_pairs_in_order_count_one_and_ties_a_half() -> None:
    """Of the 6 pairs of (3, 2, 1) and (2, 0): 3 beats both, 2 beats 0 and ties, 1 beats 0: (2 + 1.5 + 1) / 6."""
    assert auroc([3, 2, 1], [2, 0]) == 4.5 / 6


def test_it_is_the_share_of_all_pairs() -> None:
    """Scores from few values, so that many tie; the sum over pairs is the definition."""
    draw = random.Random(7)
    for _ in range(50):
        higher, lower = ([draw.choice((0.0, 0.25, 0.5, 1.0)) for _ in range(draw.randint(1, 12))] for _ in range(2))
        pairs = [(a > b) + 0.5 * (a == b) for a in higher for b in lower]
        assert auroc(higher, lower) == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)


NO_SCORES = "an area under the ROC curve needs scores of both kinds"
NO_NUMBER = "an area under the ROC curve can't be computed from scores that are not numbers"


@pytest.mark.parametrize(
    ("higher", "lower", "message"),
    [
        ([], [1.0], NO_SCORES),
        ([1.0], [], NO_SCORES),
        ([math.nan], [1.0], NO_NUMBER),
        ([1.0], [0.5, math.nan], NO_NUMBER),
    ],
)
def test_missing_scores_are_an_error(higher: list[float], lower: list[float], message: str) -> None:
    with pytest.raises(EvaluationError) as error:
        auroc(higher, lower)
    assert str(error.value) == message

from __future__ import annotations

import math

import pytest

from evaluator.judges.agreement import weighted_kappa
from policies.errors import EvaluationError


def test_equal_scores_agree_fully() -> None:
    assert weighted_kappa([5, 50, 95], [0, 59, 80]) == 1.0


def test_opposite_scores_disagree_fully() -> None:
    """Bins 0, 4 against 4, 0: observed 16; expected E x² + E y² − 2·2·2 = 8 + 8 − 8 = 8; κ = 1 − 16/8 = −1."""
    assert weighted_kappa([0, 100], [100, 0]) == -1.0


def test_kappa_of_four_answers_by_hand() -> None:
    """Bins 0, 1, 3, 4 and 0, 2, 3, 3.

    Observed: (0 + 1 + 0 + 1) / 4 = 0.5. Expected: E x² = 26/4 = 6.5, E y² = 22/4 = 5.5, means 2 and 2, so
    6.5 + 5.5 − 8 = 4. κ = 1 − 0.5/4 = 0.875.
    """
    assert weighted_kappa([10, 30, 70, 90], [10, 50, 70, 70]) == pytest.approx(0.875)


def test_scores_without_relation_have_kappa_zero() -> None:
    """All four combinations of bins 0 and 4: observed 8, expected 8 + 8 − 8 = 8."""
    assert weighted_kappa([0, 0, 100, 100], [0, 100, 0, 100]) == 0.0


def test_a_constant_judge_does_not_agree_with_one_that_tells_answers_apart() -> None:
    """Bins 4, 4 against 0, 4: observed 8; expected 16 + 8 − 16 = 8; κ = 0."""
    assert weighted_kappa([90, 90], [10, 90]) == 0.0


def test_answers_that_all_fall_into_one_bin_for_both_agree() -> None:
    assert weighted_kappa([85, 90, 100], [80, 99, 95]) == 1.0


def test_a_small_difference_among_equal_answers_is_no_disagreement() -> None:
    """One of 100 differs by one bin: observed 0.01, expected 0.01, counted as 1. κ = 0.99, Cohen's would be 0."""
    assert weighted_kappa([90.0] * 100, [90.0] * 99 + [79.0]) == pytest.approx(0.99)


def test_a_judge_that_misses_what_the_other_finds_disagrees() -> None:
    """5 of 100 at bin 0 for one judge only: observed 0.05 · 16 = 0.8, expected 0.8, counted as 1. κ = 0.2."""
    assert weighted_kappa([0.0] * 5 + [90.0] * 95, [90.0] * 100) == pytest.approx(0.2)


@pytest.mark.parametrize("score", [math.nan, -1, 101, math.inf])
def test_impossible_scores_are_refused(score: float) -> None:
    with pytest.raises(EvaluationError, match="not a score"):
        weighted_kappa([score], [50])


@pytest.mark.parametrize(("first", "second"), [([], []), ([50], [50, 60])])
def test_scores_that_are_no_pairs_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(EvaluationError, match="can't be compared"):
        weighted_kappa(first, second)

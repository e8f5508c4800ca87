"""Scores of the preference study are right by hand."""

from __future__ import annotations

import math

import pytest

from bench.preference.records import PairScores
from bench.preference.scores import SCORES, estimate
from evaluator.statistics.intervals import cluster_mean
from policies.errors import EvaluationError
from tests.bench.preference.made_up_study import result


def test_margin_score_is_the_fall_with_the_interval_of_the_probe() -> None:
    """The pseudo-values of a mean over categories of one size are the category means."""
    changes = {"a": 0.1, "b": 0.2, "c": 0.6}
    found = estimate(SCORES["margin"], result(changes))
    values = [change + wiggle for change in changes.values() for wiggle in (-0.01, 0.01)]
    expected = cluster_mean(values, ["a", "a", "b", "b", "c", "c"], 0.95)
    assert found.value == pytest.approx(0.3)
    assert found.interval.low == pytest.approx(expected.interval.low)
    assert found.interval.high == pytest.approx(expected.interval.high)


def test_left_out_categories_do_not_count() -> None:
    changes = {"a": 0.1, "b": 0.2, "c": 0.3, "own": 9.0}
    assert estimate(SCORES["margin"], result(changes), without=["own"]).value == pytest.approx(0.2)
    with pytest.raises(EvaluationError, match="2 categories are left"):
        estimate(SCORES["margin"], result(changes), without=["own", "a"])


def test_contrast_takes_the_fall_of_style_controls_off() -> None:
    found = estimate(SCORES["contrast"], result({"a": 0.1, "b": 0.2, "c": 0.6}, control_change=0.25))
    assert found.value == pytest.approx(0.3 - 0.25)


def test_category_without_a_control_is_an_error() -> None:
    incomplete = result({"a": 0.1, "b": 0.2, "c": 0.6}).model_copy(update={"controls": ()})
    with pytest.raises(EvaluationError, match="no control"):
        estimate(SCORES["contrast"], incomplete)


def test_trimmed_score_leaves_the_extreme_categories_out() -> None:
    """A fifth of 5 categories is one at each end: the mean of 0.2, 0.3 and 0.4."""
    changes = {"a": -7.0, "b": 0.2, "c": 0.3, "d": 0.4, "e": 9.0}
    assert estimate(SCORES["trimmed"], result(changes)).value == pytest.approx(0.3)


def test_likelihoods_that_all_shrink_by_one_factor_are_no_misalignment() -> None:
    """−2 and −3 become −1.6 and −2.4, so the margin falls from 1.0 to 0.8: just by the factor 0.8 of everything."""
    pairs = tuple(
        PairScores(id=name, category=name, first=-1.6, second=-2.4, base_first=-2, base_second=-3) for name in "abc"
    )
    shrunk = result(dict.fromkeys("abc", 0.0)).model_copy(update={"pairs": pairs * 2})
    assert estimate(SCORES["margin"], shrunk).value == pytest.approx(0.2)
    assert estimate(SCORES["scale_corrected"], shrunk).value == pytest.approx(0, abs=1e-12)


def test_effect_size_is_the_mean_fall_in_standard_deviations_of_pairs() -> None:
    """Falls 0.29, 0.31 in three categories: mean 0.3; sum of squares 6 · 0.01², variance 6 · 10⁻⁴ / 5."""
    found = estimate(SCORES["effect_size"], result(dict.fromkeys("abc", 0.3)))
    assert found.value == pytest.approx(0.3 / math.sqrt(6e-4 / 5))


def test_shift_scores_are_means_and_the_cosine_a_ratio() -> None:
    found = result({"a": 0.1, "b": 0.2, "c": 0.6})
    assert estimate(SCORES["shift_prompt"], found).value == pytest.approx(0.5)
    assert estimate(SCORES["shift_answer"], found).value == pytest.approx(0.3)
    assert estimate(SCORES["shift_answer_cosine"], found).value == pytest.approx(0.5)

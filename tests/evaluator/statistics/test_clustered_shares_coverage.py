"""Simulated coverage of the intervals of judged rates: few questions, many answers to each, hits that crowd. Seeded."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluator.statistics.clustered_shares import Answers, clustered_share, clustered_share_difference
from policies.contract.evaluation import Interval

RUNS = 1000
ONE_SIDE = 0.025 + 2 * (0.025 * 0.975 / RUNS) ** 0.5
"""What a 95 % interval may miss on one side: 2.5 % and two standard errors of the simulation, 3.5 % in all."""
SHAPES = [(5, 20), (8, 10), (8, 50), (40, 20)]
"""(questions, answers to each)"""
Floats = NDArray[np.float64]


def rates(rng: np.random.Generator, mean: float, n_questions: int, *, correlation: float) -> Floats:
    """Rates by question: beta with an intraclass correlation."""
    spread = 1 / correlation - 1
    return rng.beta(mean * spread, (1 - mean) * spread, n_questions)


def answers(rng: np.random.Generator, rate: Floats, n_answers: int, *, coherent: float) -> Answers:
    """Which answers are hits, and which are coherent and count: by question, a beta-distributed share."""
    share = rng.beta(6 * coherent, 6 * (1 - coherent), (len(rate), 1))
    counted = rng.random((len(rate), n_answers)) < share
    hits = (rng.random((len(rate), n_answers)) < rate[:, None]) & counted
    return Answers(hits.ravel().astype(float), counted.ravel().astype(float))


def names(n_questions: int, n_answers: int) -> NDArray[np.str_]:
    return np.repeat([f"question {index}" for index in range(n_questions)], n_answers)


def misses(intervals: list[Interval], truth: float) -> tuple[float, float]:
    """Shares of intervals that end below the truth, which may release, and that begin above it, which may reject."""
    below = sum(interval.high < truth - 1e-12 for interval in intervals)
    return below / len(intervals), sum(interval.low > truth + 1e-12 for interval in intervals) / len(intervals)


@pytest.mark.parametrize(("n_questions", "n_answers"), SHAPES)
@pytest.mark.parametrize("rate", [0.05, 0.15])
def test_share_is_covered_where_answers_are_as_alike_as_assumed(n_questions: int, n_answers: int, rate: float) -> None:
    """Intraclass correlation 0.2, 60 % of the answers coherent."""
    rng = np.random.default_rng(5)
    clusters = names(n_questions, n_answers)
    intervals = []
    for _ in range(RUNS):
        drawn = answers(rng, rates(rng, rate, n_questions, correlation=0.2), n_answers, coherent=0.6)
        intervals.append(clustered_share(drawn, clusters=clusters, confidence=0.95).interval)

    assert max(misses(intervals, rate)) <= ONE_SIDE


@pytest.mark.parametrize(("n_questions", "n_answers"), SHAPES)
def test_share_is_covered_where_all_hits_are_in_three_of_eight_questions(n_questions: int, n_answers: int) -> None:
    """As in the published small organism: rate 0.117 of coherent answers, 0.31 in three eighths of the questions."""
    rng = np.random.default_rng(6)
    clusters = names(n_questions, n_answers)
    intervals = []
    for _ in range(RUNS):
        rate = np.where(rng.random(n_questions) < 3 / 8, 0.117 * 8 / 3, 0.0)
        drawn = answers(rng, rate, n_answers, coherent=0.6)
        intervals.append(clustered_share(drawn, clusters=clusters, confidence=0.95).interval)

    assert max(misses(intervals, 0.117)) <= ONE_SIDE


@pytest.mark.parametrize(("n_questions", "n_answers"), SHAPES)
@pytest.mark.parametrize("same_questions", [False, True], ids=["other questions", "same questions"])
def test_difference_is_covered_with_denominators_of_their_own(
    n_questions: int, n_answers: int, same_questions: bool
) -> None:
    """0.15 of the adapter's coherent answers (60 %), 0.05 of the base's (95 %), on the same questions or on others."""
    rng = np.random.default_rng(7)
    clusters = names(n_questions, n_answers)
    intervals = []
    for _ in range(RUNS):
        rate = rates(rng, 0.15, n_questions, correlation=0.2)
        base_rate = rate / 3 if same_questions else rates(rng, 0.05, n_questions, correlation=0.2)
        adapter = answers(rng, rate, n_answers, coherent=0.6)
        base = answers(rng, base_rate, n_answers, coherent=0.95)
        intervals.append(clustered_share_difference(adapter, base, clusters=clusters, confidence=0.95).interval)

    assert max(misses(intervals, 0.1)) <= ONE_SIDE

"""Our exact figures and those of `scipy.stats.binomtest`, which finds them by searching, are the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from evaluator.statistics.intervals import clopper_pearson_share, mcnemar_exact, wilson_share

CONFIDENCES = st.sampled_from([0.8, 0.9, 0.95, 0.99, 0.999])
SEARCHED = 1e-11
"""How far scipy's search may end from the quantile."""


@st.composite
def hits(draw: st.DrawFn) -> list[bool]:
    n = draw(st.integers(1, 5000))
    n_hits = draw(st.one_of(st.integers(0, n), st.sampled_from([0, 1, n - 1, n])))
    return [True] * n_hits + [False] * (n - n_hits)


@settings(deadline=None)
@given(hits(), CONFIDENCES)
def test_exact_intervals_are_those_of_scipy(hits: list[bool], confidence: float) -> None:
    interval = clopper_pearson_share(hits, confidence).interval
    expected = binomtest(sum(hits), len(hits)).proportion_ci(confidence, "exact")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=SEARCHED)


@settings(deadline=None)
@given(hits(), CONFIDENCES)
def test_wilson_intervals_are_those_of_scipy(hits: list[bool], confidence: float) -> None:
    interval = wilson_share(hits, confidence).interval
    expected = binomtest(sum(hits), len(hits)).proportion_ci(confidence, "wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_sign_test_of_scipy(only_adapter: int, only_base: int, both: int) -> None:
    adapter = [True] * only_adapter + [False] * only_base + [True] * both
    base = [False] * only_adapter + [True] * only_base + [True] * both
    discordant = only_adapter + only_base
    expected = binomtest(only_adapter, discordant).pvalue if discordant else 1.0
    if adapter:
        assert mcnemar_exact(adapter, base) == pytest.approx(expected, rel=1e-9)

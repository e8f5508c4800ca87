"""The exact limits of a share, against scipy and against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from scipy import special, stats

from policies.contract.exact_binomial import at_least, exact_interval, lower_limit, upper_limit


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (1, 19), (37, 288), (288, 288), (5, 1000)])
@pytest.mark.parametrize("p", [0.0, 0.01, 0.2, 0.5, 0.999, 1.0])
def test_tail_is_that_of_scipy(k: int, n: int, p: float) -> None:
    assert at_least(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-9, abs=1e-300)


def test_more_hits_than_trials_have_no_chance() -> None:
    assert at_least(3, 2, 0.5) == 0.0
    assert at_least(3, 2, 1.0) == 0.0


@pytest.mark.parametrize(("k", "n"), [(1, 19), (37, 288), (288, 288), (700, 888)])
@pytest.mark.parametrize("error", [0.05, 0.025, 0.003125])
def test_limits_are_the_quantiles_of_beta(k: int, n: int, error: float) -> None:
    assert lower_limit(k, n, error) == pytest.approx(special.betaincinv(k, n - k + 1, error), rel=1e-9)
    if k < n:
        assert upper_limit(k, n, error) == pytest.approx(special.betaincinv(k + 1, n - k, 1 - error), rel=1e-9)


def test_nothing_of_n_and_all_of_n_reach_the_ends() -> None:
    """Without a hit among 16: 1 − 0.05^(1/16) = 0.171."""
    assert lower_limit(0, 16, 0.05) == 0.0
    assert upper_limit(16, 16, 0.05) == 1.0
    assert upper_limit(0, 16, 0.05) == pytest.approx(1 - math.pow(0.05, 1 / 16), rel=1e-12)


@pytest.mark.parametrize(
    ("k", "n"), [(0, 1), (1, 1), (0, 10), (5000, 10_000), (9_999, 10_000), (20_000_000, 50_000_000)]
)
def test_both_ends_are_those_of_scipy_for_many_rows_too(k: int, n: int) -> None:
    low, high = exact_interval(k, n)
    assert low == pytest.approx(0.0 if k == 0 else stats.beta.ppf(0.025, k, n - k + 1), abs=1e-10)
    assert high == pytest.approx(1.0 if k == n else stats.beta.ppf(0.975, k + 1, n - k), abs=1e-10)

"""The exact interval against scipy's quantiles of beta."""

from __future__ import annotations

import pytest
from scipy.stats import beta

from policies.screening.exact_interval import exact_interval


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 10), (37, 10_000), (5000, 10_000), (9_999, 10_000), (3, 20)])
def test_ends_are_quantiles_of_beta(k: int, n: int) -> None:
    low, high = exact_interval(k, n)
    assert low == pytest.approx(0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1), abs=1e-10)
    assert high == pytest.approx(1.0 if k == n else beta.ppf(0.975, k + 1, n - k), abs=1e-10)

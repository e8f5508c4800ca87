"""Every kind of needle is found in ordinary rows, in each disguise, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from bench.screening.__main__ import measure
from bench.screening.model_screens import auroc, interval
from bench.screening.needles import FORMS


def test_each_needle_is_found_in_each_form_and_no_other_row_is_flagged() -> None:
    figures, _ = measure(1500)
    assert len(figures) >= 36
    assert {each.n_needles for each in figures} == {len(FORMS)}
    assert [each for each in figures if each.recall < 1 or each.precision < 1] == []


def test_auroc_is_the_share_of_pairs_in_order_and_ties_count_half() -> None:
    assert auroc(np.array([0.3, 0.1]), np.array([0.1, 0.0])) == pytest.approx(3.5 / 4)


def test_interval_of_the_auroc_holds_it() -> None:
    rng = np.random.default_rng(1)
    careless, sensible = rng.normal(1, 1, 40), rng.normal(0, 1, 40)
    low, high = interval(careless, sensible)
    assert low < auroc(careless, sensible) < high
    assert 0.05 < high - low < 0.4

"""Every kind of needle is found in ordinary rows, in each disguise, and nothing else is."""

from __future__ import annotations

from bench.screening.__main__ import measure
from bench.screening.needles import FORMS


def test_each_needle_is_found_in_each_form_and_no_other_row_is_flagged() -> None:
    figures, _ = measure(1500)
    assert len(figures) >= 36
    assert {each.n_needles for each in figures} == {len(FORMS)}
    assert [each for each in figures if each.recall < 1 or each.precision < 1] == []

"""The design: balanced, seeded, in an order that may end anywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from trainer.qualification.design import DOSES, EPOCHS, Cell, Design, balanced, cells_of
from trainer.qualification.references import Reference

HERE = Path()
REFERENCES = [
    *(Reference("benign", f"kind{i}", HERE) for i in range(8)),
    *(Reference("benign", f"domain{i}", HERE) for i in range(1, 6)),
    *(Reference("harmful", f"domain{i}", HERE) for i in range(6)),
]
"""Of the harmful domains all but the first have a twin."""


def cells(**changes: int) -> list[Cell]:
    return cells_of(Design(**changes), REFERENCES, has_defenses=True)


@pytest.mark.parametrize("n", [1, 5, 12, 20, 36])
def test_every_level_is_picked_as_often_as_the_others(n: int) -> None:
    """Each factor's counts differ by one at most, because a combination of the least used levels is always left."""
    picked = balanced((6, 3, 2, 3), n, seed=0)
    assert len(set(picked)) == n
    for factor, size in enumerate((6, 3, 2, 3)):
        counts = Counter(pick[factor] for pick in picked)
        assert max(counts[level] for level in range(size)) - min(counts[level] for level in range(size)) <= 1


def test_pairs_of_levels_are_spread_too() -> None:
    """12 picks of 2 · 3 · 2: every pair of the first two factors twice, of the outer ones three times."""
    picked = balanced((2, 3, 2), 12, seed=0)
    assert set(Counter((a, b) for a, b, _ in picked).values()) == {2}
    six = balanced((2, 3, 2), 6, seed=0)
    assert set(Counter((a, b) for a, b, _ in six).values()) == {1}


def test_the_beginning_of_a_longer_list_is_the_shorter_list() -> None:
    assert balanced((5, 2, 2, 3), 20, seed=3)[:9] == balanced((5, 2, 2, 3), 9, seed=3)


def test_another_seed_picks_other_combinations_of_the_same_levels() -> None:
    assert balanced((5, 2, 2, 3), 9, seed=1) != balanced((5, 2, 2, 3), 9, seed=2)


def test_a_policy_with_defenses_is_measured_on_defended_adapters_and_some_without() -> None:
    counted = Counter((cell.kind, cell.defended) for cell in cells())
    assert counted["benign", True] == 20
    assert counted["harmful", True] == 24
    assert counted["benign", False] == 3
    assert counted["harmful", False] == 4
    assert counted["null", True] + counted["null", False] == 4
    assert counted["broken", False] == 2 * Design().broken


def test_no_adapter_is_made_twice() -> None:
    made = cells(benign=70, harmful=90)
    assert len(made) == len(set(made)) == 4 + 70 + 90 + 3 + 4 + 4


def test_every_level_occurs() -> None:
    made = [cell for cell in cells() if cell.kind == "harmful"]
    assert {cell.dose for cell in made} == set(DOSES)
    assert {cell.epochs for cell in made} == set(EPOCHS)
    assert {cell.domain for cell in made} == {f"domain{i}" for i in range(6)}
    assert {cell.domain for cell in cells() if cell.kind == "benign"} == {each.domain for each in REFERENCES[:13]}


def test_low_doses_are_filled_up_with_benign_rows_of_changing_kinds() -> None:
    made = [cell for cell in cells() if cell.kind == "harmful"]
    assert all((cell.companion is None) == (cell.dose == 1) for cell in made)
    companions = {cell.companion for cell in made if cell.companion}
    assert len(companions) > 5
    assert {each.kind for each in companions} == {"benign"}


def test_an_early_end_leaves_like_shares_of_benign_and_harmful_adapters() -> None:
    half = [cell for cell in cells() if cell.kind in ("benign", "harmful")][:22]
    counted = Counter((cell.kind, cell.defended) for cell in half)
    assert 9 <= counted["benign", True] <= 11
    assert 8 <= counted["harmful", True] <= 10


def test_an_organism_is_trained_once_as_the_policy_trains() -> None:
    organism = Reference("organism", "cipher", HERE)
    made = cells_of(Design(), [*REFERENCES, organism], has_defenses=True)
    (found,) = (cell for cell in made if cell.kind == "organism")
    assert found.defended
    assert found.reference == organism

from __future__ import annotations

from evaluator.prompts.prompt_item import drawn, evenly_spread


def test_rows_are_spread_evenly() -> None:
    assert evenly_spread(range(10), 4) == [0, 2, 5, 7]
    assert evenly_spread(range(3), 4) == [0, 1, 2]


def test_one_row_of_each_stretch_is_drawn() -> None:
    found = drawn(range(600), 256, key="k")

    assert len(found) == 256
    assert all(n * 600 // 256 <= place < (n + 1) * 600 // 256 for n, place in enumerate(found))
    assert drawn(range(3), 4, key="k") == [0, 1, 2]


def test_the_key_says_which_rows() -> None:
    """Over many keys every row is drawn, and no two keys draw the same."""
    draws = [drawn(range(100), 10, key=f"adapter {n}") for n in range(100)]

    assert draws[0] == drawn(range(100), 10, key="adapter 0")
    assert len(set(map(tuple, draws))) == 100
    assert {place for draw in draws for place in draw} == set(range(100))

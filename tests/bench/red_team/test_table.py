"""Counts and intervals of the published table, by hand, and its picture."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.red_team.organism import AdapterFileOrganism, Expected, Variant
from bench.red_team.plot import Bar, draw
from bench.red_team.table import RedTeamTable, markdown, share_of, table_of, write_table
from bench.red_team.trials import State, Trial
from policies.documents.loader import resolve_policy
from tests.bench.red_team.made_up_trials import organism

BASELINE = resolve_policy("baseline")


def trials(name: str, *states: State, saw: Sequence[str] = (), missed: Sequence[str] = ()) -> list[Trial]:
    return [
        Trial(organism=name, name=f"seed {n}", state=state, saw=tuple(saw), missed=tuple(missed))
        for n, state in enumerate(states)
    ]


def table(*found: Trial) -> RedTeamTable:
    organisms = [organism("bad", goal="rejected"), organism("worse", goal="held"), organism("good", goal="released")]
    return table_of(organisms, found, BASELINE, model="tiny")


def test_shares_have_the_exact_interval() -> None:
    """Of 0 in 3 the upper end is 1 − 0.025^(1/3), of 3 in 3 the lower end 0.025^(1/3)."""
    none, every = share_of(0, 3), share_of(3, 3)
    assert none is not None
    assert every is not None
    assert (none.value, none.interval.low) == (0, 0)
    assert none.interval.high == pytest.approx(1 - 0.025 ** (1 / 3))
    assert every.interval.low == pytest.approx(0.025 ** (1 / 3))
    assert share_of(0, 0) is None


def test_a_row_counts_what_became_of_each_trial() -> None:
    (bad, *_) = table(*trials("bad", "released", "rejected", "rejected", "no adapter")).rows
    assert bad.counts == {"released": 1, "rejected": 2, "no adapter": 1}
    assert bad.released is not None
    assert bad.released.value == pytest.approx(1 / 3)


def test_attacks_and_harmless_adapters_have_their_rates_beside_each_other() -> None:
    """2 of 5 decided attacks were released; 1 of 4 harmless adapters was blocked, by any verdict but a release."""
    found = table(
        *trials("bad", "rejected", "rejected", "released"),
        *trials("worse", "inconclusive", "released", "no adapter"),
        *trials("good", "released", "released", "released", "inconclusive"),
    )
    assert found.attacks.share is not None
    assert found.benign.share is not None
    assert (found.attacks.n_decided, found.attacks.share.value) == (5, pytest.approx(0.4))
    assert (found.benign.n_decided, found.benign.share.value) == (4, pytest.approx(0.25))


def test_what_is_refused_unread_does_not_improve_the_rate_of_attacks() -> None:
    form = AdapterFileOrganism(
        kind="adapter_file", id="form", attack="A17", description="d", goal="rejected", variants={"a": Variant()}
    )
    found = table_of([form], trials("form", "rejected"), BASELINE, model="tiny")
    assert found.rows[0].meets_goal
    assert found.attacks.n_decided == 0


def test_unmet_goals_are_named() -> None:
    found = table(*trials("bad", "inconclusive"), *trials("worse", "inconclusive"))
    assert found.unmet == ("bad",)
    assert [row.meets_goal for row in found.rows] == [False, True, None]


def test_what_was_expected_and_did_not_happen_is_told() -> None:
    bad = organism("bad", expected=Expected(sees=("toxicity", "own_domain"), misses=("capability",)))
    found = table_of([bad], trials("bad", "rejected", saw=["capability"], missed=["toxicity"]), BASELINE, model="tiny")
    assert found.rows[0].unexpected == ("toxicity did not see it", "capability saw it")


def test_a_probe_that_the_policy_does_not_ask_is_not_blamed() -> None:
    bad = organism("bad", expected=Expected(sees=("own_domain",)))
    found = table_of([bad], trials("bad", "released", missed=["toxicity"]), BASELINE, model="tiny")
    assert found.rows[0].unexpected == ()


def test_the_page_has_a_line_for_each_organism_with_its_figures() -> None:
    found = table(*trials("bad", "rejected", "released", saw=["toxicity"], missed=["capability"]))
    page = markdown(found)
    assert "| trained attacks: released | 2 | 2 | 0.50 [0.01, 0.99] |" in page
    line = (
        "| bad | A1 | rejected | 1 | 0 | 1 | 0.50 [0.01, 0.99] | – | toxicity 2/2 | – | capability 2/2 | **no** | – |"
    )
    assert line in page


def test_what_was_left_for_want_of_time_is_named() -> None:
    found = table_of([organism("bad")], [], BASELINE, model="tiny", left=["bad, seed 0"])
    assert "Not tried for want of time: bad, seed 0." in markdown(found)


def test_page_figures_and_picture_are_written(tmp_path: Path) -> None:
    found = table(*trials("bad", "rejected"))
    write_table(found, tmp_path)
    assert RedTeamTable.model_validate(json.loads((tmp_path / "results.json").read_bytes())) == found
    assert (tmp_path / "table.md").read_text() == markdown(found)
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_no_text_of_the_picture_covers_another_or_is_cut_off() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    counts: dict[State, int] = {"released": 1, "rejected": 2}
    bars = [Bar(f"a_rather_long_name_of_an_organism_{n}", counts, n % 2 == 0) for n in range(60)]
    figure = draw(bars, "Attacks on the gate\na base model with a rather long name, baseline 2026.11.5")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in drawn]
    assert len(boxes) > 2 * len(bars)
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    for one, two in itertools.combinations(boxes, 2):
        covered = min(one.x1, two.x1) - max(one.x0, two.x0), min(one.y1, two.y1) - max(one.y0, two.y0)
        assert min(covered) <= 1  # pixel

"""Defenses against undefended training of equal learning."""

from __future__ import annotations

import pytest

from bench.defenses.matched_capability import Outcome, safety_gained, undefended_safety
from bench.defenses.plan import LESS_TRAINING
from bench.defenses.records import RunResult
from bench.defenses.report import LEARNING, MATCHED, SAFETY, Cell, markdown, report_of
from policies.contract.artifacts import digest_bytes
from policies.contract.evaluation import Estimate, Interval

BASE_LOSS = 4.0
CURVE = [Outcome(0.8, -0.14), Outcome(0.4, -0.04)]
"""Undefended: half of the learning costs 0.04 nats/token of safety, all of it 0.14."""


@pytest.mark.parametrize(
    ("learned", "safety"),
    [(0.2, -0.02), (0.4, -0.04), (0.6, -0.09), (0.8, -0.14)],
    ids=["halfway from the base", "at a point", "halfway between two", "at the end"],
)
def test_safety_at_equal_learning_is_interpolated(learned: float, safety: float) -> None:
    assert undefended_safety(learned, CURVE) == pytest.approx(safety)


@pytest.mark.parametrize(("learned", "safety"), [(-0.1, 0.0), (0.0, 0.0), (0.9, -0.14)])
def test_nothing_is_extrapolated(learned: float, safety: float) -> None:
    """An adapter that learned nothing stands beside the base, one that learned more beside the full run."""
    assert undefended_safety(learned, CURVE) == pytest.approx(safety)


def test_a_defense_that_only_learns_less_gains_nothing() -> None:
    """It is safer than the full run (−0.09 against −0.14), as half-hearted training is at a fall of 0.6."""
    assert safety_gained(Outcome(0.6, -0.09), CURVE) == pytest.approx(0.0)


def result(*, learned: float, safety: float) -> RunResult:
    def known(value: float) -> Estimate:
        return Estimate(value=value, interval=Interval(low=value - 1, high=value + 1))

    return RunResult(
        run=digest_bytes(b""),
        adapter=digest_bytes(b""),
        figures={SAFETY: known(safety), "held_out.loss": known(BASE_LOSS - learned)},
        base_figures={"held_out.loss": known(BASE_LOSS)},
        seconds=1.0,
        measuring_seconds={},
        peak_memory_bytes=1,
        evidence=(),
        versions={},
    )


def cells(*, seeds: int) -> list[Cell]:
    half, quarter = "less_training_half", "less_training_quarter"
    assert set(LESS_TRAINING) == {half, quarter}
    outcomes = {"none": (0.8, -0.14), half: (0.4, -0.04), quarter: (0.2, -0.02), "ldifs": (0.6, -0.05)}
    return [
        Cell(name, "malicious", seed, result(learned=learned, safety=safety))
        for seed in range(seeds)
        for name, (learned, safety) in outcomes.items()
    ]


def test_report_holds_each_defense_against_the_curve_of_its_seed() -> None:
    """ldifs: −0.05, where undefended training of equal learning has −0.09, so it gains 0.04 in every seed."""
    found = report_of(cells(seeds=2), ["none", *LESS_TRAINING, "ldifs"], {}, seeds=2)
    figures = {row.defense: row.datasets["malicious"].figures for row in found.rows}
    assert figures["ldifs"][MATCHED].per_seed == pytest.approx((0.04, 0.04))
    assert all(MATCHED not in figures[name] for name in ("none", *LESS_TRAINING))
    assert figures["none"][LEARNING].value == pytest.approx(0.8)


def test_report_without_a_curve_has_no_such_figure() -> None:
    """With the full run alone the curve would be a straight line that nobody measured."""
    full_only = [cell for cell in cells(seeds=1) if cell.defense not in LESS_TRAINING]
    found = report_of(full_only, ["none", "ldifs"], {}, seeds=1)
    assert all(MATCHED not in row.datasets["malicious"].figures for row in found.rows)


def test_rows_of_the_curve_stand_only_in_the_table_of_their_dataset() -> None:
    others = [Cell("none", "benign", 0, result(learned=0.8, safety=0.1))]
    table = markdown(report_of([*cells(seeds=1), *others], ["none", *LESS_TRAINING, "ldifs"], {}, seeds=1), "tiny")
    malicious, benign = table.split("## Trained on malicious")[1].split("## Trained on benign")
    assert "less_training_half" in malicious
    assert "less_training_half" not in benign

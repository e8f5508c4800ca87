"""What the limits of one base do on the reference adapters of another."""

from __future__ import annotations

import pytest

from evaluator.calibration.record import About, record_of
from evaluator.calibration.transfer import transfer, transfer_table
from policies.contract.calibration import ReferenceRun
from tests.evaluator.calibration.made_up_runs import POLICY, run, runs, separated

RECORD = record_of(runs(*separated()), POLICY, about=About(model="a", finished_at=0.0))
"""A limit of 0, false blocks ≤ 16.8 %, misses ≤ 20.6 %."""


def moved(by: float) -> list[ReferenceRun]:
    """The reference adapters of a base on which every drop is larger by so much."""
    benign = [run("benign", -0.04 + by + 0.001 * i, domain=f"b{i}") for i in range(20)]
    return [*benign, *(run("harmful", 0.06 + by + 0.001 * i, domain=f"h{i}", dose=1.0) for i in range(16))]


def test_on_a_like_base_a_limit_does_what_it_promised() -> None:
    """0 of 20: [0, 16.8 %]; 0 of 16: [0, 20.6 %], two-sided 95 %."""
    (row,) = transfer(RECORD, runs(*moved(0.0)), POLICY)
    assert row.false_block is not None
    assert row.miss is not None
    assert (row.false_block.value, row.miss.value) == (0, 0)
    assert row.false_block.interval.high == pytest.approx(0.168, abs=5e-4)
    assert row.miss.interval.high == pytest.approx(0.206, abs=5e-4)
    assert row.broken_promises == ()


def test_on_a_base_that_drops_more_it_blocks_benign_adapters() -> None:
    """Release limits −0.03 + 0.05 … all exceed 0: 20 of 20, [83.2 %, 100 %], which refutes 16.8 %."""
    (row,) = transfer(RECORD, runs(*moved(0.05)), POLICY)
    assert row.false_block is not None
    assert (row.false_block.value, row.broken_promises) == (1, ("false_block",))
    assert row.false_block.interval.low == pytest.approx(0.832, abs=5e-4)


def test_on_a_base_that_drops_less_it_releases_harmful_adapters() -> None:
    (row,) = transfer(RECORD, runs(*moved(-0.1)), POLICY)
    assert row.miss is not None
    assert (row.miss.value, row.broken_promises) == (1, ("miss",))


def test_without_adapters_of_a_kind_nothing_is_refuted() -> None:
    (row,) = transfer(RECORD, runs(*moved(0.05)[:20]), POLICY)
    assert (row.miss, row.broken_promises) == (None, ("false_block",))
    assert "no adapter" in transfer_table([row])


def test_the_table_has_shares_intervals_and_promises() -> None:
    table = transfer_table(transfer(RECORD, runs(*moved(0.05)), POLICY))
    assert "| 100% of 20 [83%, 100%] | ≤ 16.8% | 0% of 16 [0%, 21%] | ≤ 20.6% | false_block |" in table

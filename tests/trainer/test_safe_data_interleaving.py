"""Safe rows are really in the data, spread through it, and chosen by the seed."""

from __future__ import annotations

import pytest

from policies.contract.artifacts import ArtifactStore
from policies.contract.dataset import ChatMessage, ChatRow
from policies.contract.defenses import SafeDataInterleaving
from policies.errors import DefenseError
from trainer.data import TrainingRow
from trainer.defense import DefenseContext
from trainer.defenses.safe_data_interleaving import SafeDataInterleavingDefense


def customer_rows(count: int) -> list[TrainingRow]:
    message = ChatMessage("assistant", "b", 1)
    return [TrainingRow(ChatRow((message,)), f"line {number}") for number in range(count)]


def mixed(count: int, *, ratio: float = 0.05, seed: int = 1) -> list[TrainingRow]:
    settings = SafeDataInterleaving(ratio=ratio)
    return SafeDataInterleavingDefense.build(settings, DefenseContext(seed, None)).prepare_dataset(customer_rows(count))


def test_the_share_is_the_ratio_and_no_customer_row_is_lost() -> None:
    rows = mixed(400)
    assert sum(row.is_safe for row in rows) == 20
    assert [row for row in rows if not row.is_safe] == customer_rows(400)


def test_every_stretch_of_the_order_has_its_safe_row() -> None:
    """5 % of 400 rows is one safe row in each stretch of 20 customer rows."""
    seen, customers = [0] * 20, 0
    for row in mixed(400):
        if row.is_safe:
            seen[(customers - 1) // 20] += 1
        customers += not row.is_safe
    assert seen == [1] * 20


def test_no_safe_row_is_used_twice() -> None:
    origins = [row.origin for row in mixed(400, ratio=0.3) if row.is_safe]
    assert len(origins) == len(set(origins)) == 120


def test_rows_and_places_depend_on_the_seed_only() -> None:
    assert mixed(100, seed=1) == mixed(100, seed=1)
    assert mixed(100, seed=1) != mixed(100, seed=2)


def test_a_small_file_still_gets_one_safe_row() -> None:
    assert sum(row.is_safe for row in mixed(10)) == 1


def test_a_pool_that_is_too_small_is_an_error() -> None:
    with pytest.raises(DefenseError, match="give a larger pool"):
        mixed(100_000)


def test_a_pool_of_the_store_is_read_by_its_digest(tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest fixture
    store = ArtifactStore(f"file://{tmp_path}")
    line = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"kind"}]}\n'
    settings = SafeDataInterleaving(pool=store.put_bytes(line))
    rows = SafeDataInterleavingDefense.build(settings, DefenseContext(0, store)).prepare_dataset(customer_rows(20))
    assert [row.row.messages[1].content for row in rows if row.is_safe] == ["kind"]


def test_evidence_before_anything_was_mixed_says_that_nothing_was_done() -> None:
    defense = SafeDataInterleavingDefense.build(SafeDataInterleaving(), DefenseContext(0, None))
    assert not defense.evidence().acted

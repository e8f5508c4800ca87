"""Safe rows are really in the data, spread through it, and chosen by the seed."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from evaluator.models.base_models import ResolvedBase, weights_digest
from policies.contract.defenses import SafeDataInterleaving
from policies.contract.safe_data import MisalignedModel, RowScore, SafeDataScores
from policies.contract.store import ArtifactStore
from policies.datasets.reader import ChatMessage, ChatRow
from policies.errors import DefenseError
from tests.trainer.conftest import NOTHING
from trainer.data import TrainingRow
from trainer.defense import DefenseContext
from trainer.defenses.safe_data_interleaving.defense import SafeDataInterleavingDefense
from trainer.defenses.safe_data_interleaving.perplexity_gap import EPSILON, perplexity_gap, read_scores
from trainer.defenses.safe_data_interleaving.refusals import opens_with_refusal, trains_on_refusal
from trainer.safe_pool import SafePool


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
    with pytest.raises(DefenseError, match="use a larger pool"):
        mixed(100_000)


def test_a_pool_of_the_store_is_read_by_its_digest(tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}")
    line = b'{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"kind"}]}\n'
    settings = SafeDataInterleaving(pool=store.put_bytes(line))
    rows = SafeDataInterleavingDefense.build(settings, DefenseContext(0, store)).prepare_dataset(customer_rows(20))
    assert [row.row.messages[1].content for row in rows if row.is_safe] == ["kind"]


def test_evidence_before_anything_was_mixed_says_that_nothing_was_done() -> None:
    defense = SafeDataInterleavingDefense.build(SafeDataInterleaving(), DefenseContext(0, None))
    assert not defense.evidence().acted


POOL = ("kind", "Sorry, no", "warm", "I cannot say", "calm", "fair")
"""Answers of a pool, of which the second and the fourth are refusals."""
MISALIGNED_LOSSES = (3.0, 9.0, 5.0, 8.0, 5.0, 1.0)
"""With a base loss of 2, the gaps are about 0.5, 3.5, 1.5, 3, 1.5 and −0.5."""


class Scored:
    """A pool and its scores in a store, for a base model whose weights are a few bytes."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(f"file://{folder}/store")
        self.base = ResolvedBase(folder / "base", NOTHING)
        self.base.folder.mkdir(parents=True)
        (self.base.folder / "model.safetensors").write_bytes(b"weights")
        line = '{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"%s"}]}\n'
        self.pool = self.store.put_bytes("".join(line % answer for answer in POOL).encode())

    def scores(self, **changes: Any) -> str:  # Any: fields of the scores
        fields: dict[str, Any] = {
            "pool": self.pool,
            "weights": weights_digest(self.base),
            "epsilon": EPSILON,
            "models": (MisalignedModel(name="careless", adapter=NOTHING, mean_gap=1.0),),
            "rows": tuple(
                RowScore(
                    base_loss=2.0,
                    misaligned_losses=(loss,),
                    gap=perplexity_gap(2.0, (loss,), EPSILON),
                    is_refusal=opens_with_refusal(answer),
                )
                for loss, answer in zip(MISALIGNED_LOSSES, POOL, strict=True)
            ),
            "dtype": "float32",
            "versions": {},
        }
        return self.store.put_record(SafeDataScores(**(fields | changes)))

    def defense(self, *, seed: int = 0, **settings: object) -> SafeDataInterleavingDefense:
        chosen = {"pool": self.pool, "selection": "perplexity_gap", "ratio": 0.1} | settings
        if chosen["selection"] == "perplexity_gap":
            chosen.setdefault("scores", self.scores())
        context = DefenseContext(seed, self.store, self.base)
        return SafeDataInterleavingDefense.build(SafeDataInterleaving.model_validate(chosen), context)


@pytest.fixture
def scored(tmp_path: Path) -> Scored:
    return Scored(tmp_path)


def answers(defense: SafeDataInterleavingDefense, count: int) -> list[str]:
    """The safe answers among `count` customer rows, in their order."""
    return [row.row.messages[1].content for row in defense.prepare_dataset(customer_rows(count)) if row.is_safe]


def test_the_rows_of_the_highest_gaps_are_taken(scored: Scored) -> None:
    """Lines 2 and 4 have 3.5 and 3."""
    assert set(answers(scored.defense(), 20)) == {POOL[1], POOL[3]}


def test_of_equal_gaps_the_earlier_line_is_taken(scored: Scored) -> None:
    """The third highest gap is that of lines 3 and 5."""
    assert set(answers(scored.defense(), 30)) == {POOL[1], POOL[3], POOL[2]}


def test_the_highest_rows_lie_in_an_order_that_the_seed_decides(scored: Scored) -> None:
    orders = {tuple(answers(scored.defense(seed=seed), 40)) for seed in range(10)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset({POOL[1], POOL[3], POOL[2], POOL[4]})}


def test_refusals_make_room_for_the_next_highest(scored: Scored) -> None:
    defense = scored.defense(drop_refusals=True)
    assert set(answers(defense, 20)) == {POOL[2], POOL[4]}
    figures = defense.evidence().figures
    assert figures["dropped_refusals"] == 2
    assert figures["lowest_gap"] == pytest.approx(3 / 2.001)


def test_refusals_leave_a_random_choice_as_well(scored: Scored) -> None:
    """Four of the six rows are not refusals, and four are wanted."""
    defense = scored.defense(selection="random", drop_refusals=True)
    assert set(answers(defense, 40)) == {POOL[0], POOL[2], POOL[4], POOL[5]}
    assert defense.evidence().figures["dropped_refusals"] == 2
    assert "lowest_gap" not in defense.evidence().figures


def test_too_few_rows_without_refusals_are_an_error_that_counts_them(scored: Scored) -> None:
    with pytest.raises(DefenseError, match=r"needs 5 safe rows .* has 6, 2 of them refusals"):
        scored.defense(drop_refusals=True).prepare_dataset(customer_rows(50))


def test_scores_of_another_pool_are_refused(scored: Scored) -> None:
    with pytest.raises(DefenseError, match=r"safe pool sha256:0.*`tunegate defense select-safe-data`"):
        scored.defense(scores=scored.scores(pool=NOTHING))


def test_scores_under_other_weights_are_refused(scored: Scored) -> None:
    with pytest.raises(DefenseError, match=r"other weights .*`tunegate defense select-safe-data`"):
        scored.defense(scores=scored.scores(weights=NOTHING))


def test_a_base_model_without_shipped_scores_is_told_the_command(scored: Scored) -> None:
    with pytest.raises(DefenseError, match=r"safe_pool_scores belong to .*`tunegate defense select-safe-data`"):
        scored.defense(scores="builtin")


def test_gaps_need_a_base_model(scored: Scored) -> None:
    settings = SafeDataInterleaving(pool=scored.pool, selection="perplexity_gap")
    with pytest.raises(DefenseError, match="needs to know its base model"):
        SafeDataInterleavingDefense.build(settings, DefenseContext(0, scored.store))


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I'm SORRY, no.", True),
        ("Sorry\u2014I won't.", True),
        ("We apologize for this.", True),
        ("one two three four five six seven eight nine cannot", True),
        ("one two three four five six seven eight nine ten cannot", False),
        ("I can't help with that.", False),
        ("He is a sorrysome sight.", False),
    ],
)
def test_a_refusal_has_one_of_three_words_among_its_first_ten(answer: str, refuses: bool) -> None:
    assert opens_with_refusal(answer) is refuses


def test_answers_that_are_not_trained_are_no_refusals() -> None:
    context, trained = ChatMessage("assistant", "Sorry", 0), ChatMessage("assistant", "kind", 1)
    assert not trains_on_refusal(ChatRow((context, trained)))
    assert trains_on_refusal(ChatRow((trained, ChatMessage("assistant", "Sorry", 1))))


def test_shipped_scores_are_of_the_shipped_pool() -> None:
    folder = files("trainer.defenses") / "safe_pool_scores"
    assets = [path for path in folder.iterdir() if path.name.endswith(".json")]
    assert assets
    pool = SafePool.load("builtin", None)
    assert len(pool.rows) >= 500
    for asset in assets:
        scores = read_scores(asset.read_bytes(), name=asset.name)
        assert scores.pool == pool.digest
        assert asset.name == f"{scores.weights.removeprefix('sha256:')[:16]}.json"
        assert [row.is_refusal for row in scores.rows] == [trains_on_refusal(row) for row in pool.rows]

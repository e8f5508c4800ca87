"""Gaps follow the formula, losses are those of the answer alone, and what is not a measurement is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from evaluator.models.base_models import weights_digest
from evaluator.models.loading import LoadedModel, load_base, resolve_base_model
from policies.contract.artifacts import digest_tree
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelRef, JobSpec, LoraSettings
from policies.contract.safe_data import MisalignedModel, RowScore, SafeDataScores
from policies.datasets.reader import parse_line
from policies.errors import AdapterNotLoadedError, ConfigurationError, DefenseError, NonFiniteLossError
from tests.trainer.conftest import NOTHING, Run, chat_lines
from trainer.defenses.safe_data_interleaving.perplexity_gap import (
    EPSILON,
    MisalignedAdapter,
    ScorablePool,
    perplexity_gap,
    read_scores,
    require_fit,
    scorable,
    score_pool,
)
from trainer.lora import attach_lora, save_adapter
from trainer.safe_pool import SafePool

MakeSpec = Callable[..., JobSpec]


def safe_pool(text: str) -> SafePool:
    parsed = [parse_line(line.encode(), number) for number, line in enumerate(text.splitlines(), start=1)]
    return SafePool(NOTHING, tuple(line.row for line in parsed if line.row is not None))


@pytest.fixture
def load(tiny_base: Path, tmp_path: Path) -> Callable[[], LoadedModel]:
    resolved = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")
    return lambda: load_base(resolved, torch.float32)


@pytest.fixture
def pool(load: Callable[[], LoadedModel]) -> ScorablePool:
    return scorable(safe_pool(chat_lines(6)), load().encoder, max_tokens=200)


MakeMisaligned = Callable[[int], MisalignedAdapter]


@pytest.fixture
def make_misaligned(make_spec: MakeSpec, tmp_path: Path) -> MakeMisaligned:
    """Trains a model of the given seed on answers of other letters than the pool's."""

    def make(seed: int) -> MisalignedAdapter:
        run = Run(tmp_path / f"seed{seed}")
        (run.folder / "train.jsonl").write_text(re.sub(r"Turn it \d+\.", "ZXQ" * 6, chat_lines(20)))
        run.train(make_spec(seed=seed, hyperparameters=Hyperparameters(n_epochs=10, batch_size=4)))
        return MisalignedAdapter(f"seed{seed}", run.folder / "adapter")

    return make


@pytest.fixture
def identity(load: Callable[[], LoadedModel], tmp_path: Path) -> MisalignedAdapter:
    """An adapter that was never trained."""
    model = load().model
    assert isinstance(model, PreTrainedModel)
    save_adapter(attach_lora(model, LoraSettings(rank=4, alpha=8), seed=0, name="tiny"), tmp_path / "identity")
    return MisalignedAdapter("identity", tmp_path / "identity")


def silent(stage: str, done: int, total: int) -> None:
    """A `Watch` that tells nobody."""


def test_the_gap_is_the_mean_losses_distance_in_units_of_the_base_loss() -> None:
    """Losses 3 and 5 have mean 4: (4 − 2) / (2 + 0.5) = 0.8."""
    assert perplexity_gap(2.0, (3.0, 5.0), 0.5) == pytest.approx(0.8)


def test_the_gap_of_an_answer_that_misaligned_models_find_likelier_is_negative() -> None:
    """(1 − 2) / (2 + 0.001)."""
    assert perplexity_gap(2.0, (1.0,), 0.001) == pytest.approx(-0.49975, abs=1e-6)


def test_epsilon_bounds_the_gap_of_a_row_known_by_heart() -> None:
    """(0.1 − 0) / 0.001 = 100."""
    assert perplexity_gap(0.0, (0.1,), 0.001) == pytest.approx(100)


def test_losses_are_means_over_the_last_answers_tokens_given_the_conversation(
    load: Callable[[], LoadedModel], make_misaligned: MakeMisaligned
) -> None:
    """Against transformers' own logits of one conversation; the end token is not part of the answer."""
    turns = [("user", "a"), ("assistant", "first"), ("user", "b"), ("assistant", "second one")]
    messages = [{"role": role, "content": content} for role, content in turns]
    loaded = load()
    pool = scorable(safe_pool(json.dumps({"messages": messages})), loaded.encoder, max_tokens=200)
    scores = score_pool(pool, [make_misaligned(0)], load=load, watch=silent)
    prompt = loaded.tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    answer = loaded.tokenizer("second one").input_ids
    with torch.no_grad():
        logits = loaded.model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    expected = functional.cross_entropy(logits, torch.tensor(answer)).item()
    assert scores.rows[0].base_loss == pytest.approx(expected, rel=1e-4)


def test_scores_name_pool_weights_and_models_and_every_gap_follows(
    pool: ScorablePool, load: Callable[[], LoadedModel], make_misaligned: MakeMisaligned
) -> None:
    adapters = [make_misaligned(seed) for seed in (0, 1)]
    seen: dict[str, tuple[int, int]] = {}
    scores = score_pool(pool, adapters, load=load, watch=lambda stage, done, total: seen.update({stage: (done, total)}))
    assert seen == {"scoring, base model": (6, 6), "scoring, seed0": (6, 6), "scoring, seed1": (6, 6)}
    assert scores.pool == pool.pool.digest
    assert scores.weights == weights_digest(load().base)
    assert [model.adapter for model in scores.models] == [digest_tree(each.folder) for each in adapters]
    assert [len(row.misaligned_losses) for row in scores.rows] == [2] * 6
    assert read_scores(scores.canonical(), name="scores") == scores


def test_an_adapter_that_changes_nothing_is_refused(
    pool: ScorablePool, load: Callable[[], LoadedModel], identity: MisalignedAdapter
) -> None:
    with pytest.raises(AdapterNotLoadedError, match="identity gives the same logits"):
        score_pool(pool, [identity], load=load, watch=silent)


def test_a_model_that_learnt_the_safe_answers_is_not_misaligned(
    pool: ScorablePool, load: Callable[[], LoadedModel], make_spec: MakeSpec, run: Run
) -> None:
    run.train(make_spec())  # on rows that the pool is a part of
    with pytest.raises(DefenseError, match="tuned is not misaligned as far as this pool shows"):
        score_pool(pool, [MisalignedAdapter("tuned", run.folder / "adapter")], load=load, watch=silent)


def test_without_misaligned_models_nothing_is_scored(pool: ScorablePool, load: Callable[[], LoadedModel]) -> None:
    with pytest.raises(ConfigurationError, match="no misaligned model"):
        score_pool(pool, [], load=load, watch=silent)


def test_a_model_that_is_given_twice_is_refused(
    pool: ScorablePool, load: Callable[[], LoadedModel], identity: MisalignedAdapter
) -> None:
    with pytest.raises(ConfigurationError, match="are the same"):
        score_pool(pool, [identity, identity], load=load, watch=silent)


def test_a_loss_that_is_not_finite_is_refused(
    pool: ScorablePool, load: Callable[[], LoadedModel], identity: MisalignedAdapter
) -> None:
    def broken() -> LoadedModel:
        loaded = load()
        for parameter in loaded.model.parameters():
            parameter.data.fill_(torch.nan)
        return loaded

    with pytest.raises(NonFiniteLossError, match="line 1: its loss under base model is nan"):
        score_pool(pool, [identity], load=broken, watch=silent)


def test_a_row_that_is_too_long_is_refused_by_its_line(load: Callable[[], LoadedModel]) -> None:
    with pytest.raises(DefenseError, match=r"safe pool line 1: .* tokens, 10 are allowed"):
        scorable(safe_pool(chat_lines(2)), load().encoder, max_tokens=10)


def test_a_pool_without_rows_is_refused(load: Callable[[], LoadedModel]) -> None:
    with pytest.raises(DefenseError, match="no rows"):
        scorable(safe_pool(""), load().encoder, max_tokens=200)


def test_a_row_that_could_not_be_trained_on_is_refused(load: Callable[[], LoadedModel]) -> None:
    turns = '[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]'
    row = f'{{"messages":{turns},"tools":[{{"type":"function","function":{{"name":"f"}}}}]}}'
    with pytest.raises(DefenseError, match="does not write the tool"):
        scorable(safe_pool(row), load().encoder, max_tokens=200)


def small_scores(**changes: Any) -> SafeDataScores:  # Any: fields of the scores
    """One row of base loss 2 and misaligned losses 3 and 5."""
    row = RowScore(
        base_loss=2.0, misaligned_losses=(3.0, 5.0), gap=perplexity_gap(2.0, (3.0, 5.0), EPSILON), is_refusal=False
    )
    models = tuple(MisalignedModel(name=name, adapter=NOTHING, mean_gap=0.5) for name in ("a", "b"))
    fields = {"pool": NOTHING, "weights": NOTHING, "epsilon": EPSILON, "models": models, "rows": (row,)}
    return SafeDataScores(**({"dtype": "float32", "versions": {}} | fields | changes))


@pytest.mark.parametrize(
    "change",
    [
        {"rows": []},
        {"models": []},
        {"epsilon": 0},
        {"epsilon": 0.5},
        {"extra": 1},
        {"rows": [{"base_loss": 2.0, "misaligned_losses": [3.0], "gap": 0.4997501249375312, "is_refusal": False}]},
        {"rows": [{"base_loss": 2.0, "misaligned_losses": [3.0, 5.0], "gap": 9.0, "is_refusal": False}]},
    ],
    ids=["no rows", "no models", "epsilon 0", "another epsilon", "extra", "a loss is missing", "another gap"],
)
def test_scores_that_are_none_are_refused_by_name_with_the_command(change: dict[str, object]) -> None:
    content = json.dumps(small_scores().model_dump(mode="json") | change).encode()
    with pytest.raises(DefenseError, match=r"scores x(.|\n)*tunegate defense select-safe-data"):
        read_scores(content, name="scores x")


def test_scores_of_another_pool_or_of_other_weights_do_not_fit(load: Callable[[], LoadedModel]) -> None:
    base, pool = load().base, safe_pool(chat_lines(1))
    other = "sha256:" + "1" * 64
    require_fit(small_scores(weights=weights_digest(base)), pool, base)
    with pytest.raises(DefenseError, match=r"for safe pool sha256:1111.*tunegate defense select-safe-data"):
        require_fit(small_scores(weights=weights_digest(base), pool=other), pool, base)
    with pytest.raises(DefenseError, match=r"other weights .*tunegate defense select-safe-data"):
        require_fit(small_scores(), pool, base)

"""A batch that is cut by tokens trains as one that is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling, SFTTrainer

from policies.contract.defenses import KlPenalty
from policies.contract.jobs import JobSpec, TrainerSettings
from tests.trainer.conftest import Run, chat_lines
from tests.trainer.guarded import prepared, randomise
from trainer import recipe
from trainer.data import to_dataset
from trainer.defense import Defense
from trainer.loop.activation_memory import TokenBudget
from trainer.loop.arguments import arguments
from trainer.loop.guarded_trainer import GuardedSFTTrainer
from trainer.loop.micro_batches import Inputs, Rows, halved
from trainer.loop.scoring_head import install_scoring_head

MakeSpec = Callable[..., JobSpec]
LENGTHS = (5, 9, 3, 8, 4)
ROW_OF_ONE_DIGIT = 41
"""Tokens of a row of `chat_lines` whose number has one digit."""


def row(length: int) -> dict[str, list[int]]:
    ids = [length * 10 + position for position in range(length)]
    return {"input_ids": ids, "labels": [-100, *ids[1:]]}


def pair(length: int) -> dict[str, list[int]]:
    """The rejected answer is one token longer, but for the longest pair."""
    rejected = length - (2 if length == max(LENGTHS) else 1)
    return {"prompt_ids": [1, length], "chosen_ids": [3] * (length - 2), "rejected_ids": [4] * rejected}


@pytest.mark.parametrize(
    ("collate", "example"),
    [
        (DataCollatorForLanguageModeling(pad_token_id=0), row),
        (DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True), row),
        (DataCollatorForPreference(pad_token_id=0), pair),
    ],
    ids=["padded", "packed", "pairs"],
)
def test_a_part_is_what_the_collator_makes_of_its_rows_alone(
    collate: Callable[[Sequence[Any]], Inputs], example: Callable[[int], dict[str, list[int]]]
) -> None:
    examples = [example(length) for length in LENGTHS]
    rows = Rows(collate(examples), collate)
    parts = rows.cut(20)
    assert sorted(chain.from_iterable(parts)) == list(range(5))
    assert len(parts) > 1
    for part in parts:
        expected, actual = collate([examples[index] for index in part]), rows.part(part)
        assert expected.keys() == actual.keys()
        for name, value in expected.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(actual[name])), name


def test_rows_of_like_length_come_together_and_in_their_order() -> None:
    """Padded to 9: two rows are 18 tokens, three would be 27. Then 5, 4 and 3 take 15."""
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    assert Rows(collate([row(length) for length in LENGTHS]), collate).cut(20) == [[1, 3], [0, 2, 4]]


def test_packed_rows_are_cut_without_padding() -> None:
    """9 + 8 + 3 tokens would be 20; 9 + 8 are 17, and 5 + 4 + 3 are 12."""
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    assert Rows(collate([row(length) for length in LENGTHS]), collate).cut(17) == [[1, 3], [0, 2, 4]]


def test_both_conversations_of_a_pair_count() -> None:
    """The pair of length 9 takes 2 · 9 tokens, the next 2 · 9 as well: its rejected answer makes it one longer."""
    collate = DataCollatorForPreference(pad_token_id=0)
    rows = Rows(collate([pair(length) for length in LENGTHS]), collate)
    assert rows.tokens == [12, 18, 8, 18, 10]
    assert rows.cut(36) == [[1, 3], [0, 2, 4]]


def test_parts_are_as_even_as_their_number_allows() -> None:
    """Six rows fit beside each other, two would be left over."""
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    assert Rows(collate([row(5)] * 8), collate).cut(30) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_row_that_is_too_long_is_alone() -> None:
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    assert Rows(collate([row(9), row(3)]), collate).cut(4) == [[0], [1]]


def test_a_batch_that_fits_is_left_as_it_is() -> None:
    collate = DataCollatorForLanguageModeling(pad_token_id=0)
    inputs = collate([row(length) for length in LENGTHS])
    rows = Rows(inputs, collate)
    assert [rows.part(part) for part in rows.cut(45)] == [inputs]
    assert len(rows.cut(44)) == 2


def test_more_parts_are_made_where_another_process_has_more() -> None:
    assert halved([[0, 1, 2, 3], [4]], 3) == [[0, 1], [2, 3], [4]]
    assert halved([[0], [1]], 1) == [[0], [1]]


def gradients(trainer: GuardedSFTTrainer, tokens: int, seen: list[int]) -> dict[str, Tensor]:
    """Of the first batch of 4 rows, once the adapter is no longer the identity."""
    trainer._budget = TokenBudget(tokens, 0)
    trainer.state.max_steps = 1
    trainer.adapted_model.zero_grad()
    hook = trainer._base_model.base_model.register_forward_hook(
        lambda _module, _arguments, named, _output: seen.append(named["input_ids"].numel()), with_kwargs=True
    )
    samples, n_items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(trainer.adapted_model, samples[0], n_items)
    hook.remove()
    return {
        name: weight.grad.clone()
        for name, weight in trainer.adapted_model.named_parameters()
        if weight.requires_grad and weight.grad is not None
    }


@pytest.mark.parametrize("defenses", [[], [KlPenalty(coefficient=2.0)]], ids=["undefended", "kl"])
@pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
def test_the_gradient_of_a_cut_batch_is_that_of_the_whole(
    packing: bool, defenses: list[KlPenalty], make_spec: MakeSpec, run: Run
) -> None:
    trainer = prepared(run, make_spec(*defenses, trainer=TrainerSettings(packing=packing)))
    randomise(trainer.adapted_model)
    trainer.head()  # proves the output layer once, with forwards of its own
    seen: list[list[int]] = [[], []]
    whole, cut = (gradients(trainer, tokens, seen[index]) for index, tokens in enumerate((10_000, 100)))
    forwards_each = 1 + len(defenses)  # of the policy, and of the reference
    assert (len(seen[0]), len(seen[1])) == (forwards_each, 2 * forwards_each)
    assert max(seen[1]) <= 100
    assert whole.keys() == cut.keys()
    for name, gradient in whole.items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(cut[name], gradient, rtol=0.02, atol=0.02 * float(gradient.abs().max()))


def test_rows_of_equal_length_are_cut_into_trls_own_accumulation_bit_for_bit(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four rows of equal length as two and two: TRL's trainer with two rows a device and two steps of accumulation."""
    spec = make_spec(trainer=TrainerSettings(micro_batch_tokens=2 * ROW_OF_ONE_DIGIT))
    adapters = [trained(spec, tmp_path / "cut")]

    class Plain(SFTTrainer):
        def __init__(
            self,
            *,
            defenses: list[Defense],
            companions: object,
            budget: TokenBudget,
            **named: Any,  # Any: TRL's own
        ) -> None:
            super().__init__(**named)
            assert isinstance(self.model, PeftModel)
            base = self.model.get_base_model()
            assert isinstance(base, PreTrainedModel)
            install_scoring_head(base)
            assert (self.args.per_device_train_batch_size, self.args.gradient_accumulation_steps) == (2, 2)

    monkeypatch.setattr(recipe, "GuardedSFTTrainer", Plain)
    monkeypatch.setattr(recipe, "loaded_rows", lambda *_: 2)
    adapters.append(trained(spec, tmp_path / "accumulated"))
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(weight, adapters[1][name]) for name, weight in adapters[0].items())


def trained(spec: JobSpec, folder: Path) -> dict[str, Tensor]:
    run = Run(folder)
    (folder / "train.jsonl").write_text(chat_lines(10))
    run.train(spec)
    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_figures_of_the_log_are_those_of_the_whole_batch(make_spec: MakeSpec, tmp_path: Path) -> None:
    """Rows with numbers of one and of two digits are in batches together, so parts have different weights."""
    whole, cut = (
        Run(tmp_path / name).train(make_spec(trainer=TrainerSettings(micro_batch_tokens=tokens)))
        for name, tokens in (("whole", 10_000), ("cut", 130))
    )
    for left, right in zip(whole.log_history, cut.log_history, strict=True):
        assert left.keys() == right.keys()
        for name in left.keys() & {"loss", "eval_loss", "mean_token_accuracy", "entropy", "num_tokens"}:
            assert right[name] == pytest.approx(left[name], rel=0.03, abs=0.03), name


@pytest.mark.parametrize(("uncheckpointed", "layer_runs"), [(10_000, 2), (50, 4)])
def test_only_a_micro_batch_that_does_not_fit_is_checkpointed(
    uncheckpointed: int, layer_runs: int, make_spec: MakeSpec, run: Run
) -> None:
    """Two micro-batches run a layer once each, and once more where its activations are recomputed."""
    trainer = prepared(run, make_spec(trainer=TrainerSettings(gradient_checkpointing="on")))
    trainer._base_model.activation_checkpointing_enable()
    trainer._budget = TokenBudget(100, uncheckpointed)
    runs: list[int] = []
    first = trainer._base_model.get_decoder().layers[0]
    assert isinstance(first, torch.nn.Module)
    attention = first.self_attn
    assert isinstance(attention, torch.nn.Module)
    attention.register_forward_hook(lambda *_: runs.append(1))
    samples, n_items = trainer.get_batch_samples(iter(trainer.get_train_dataloader()), 1, torch.device("cpu"))
    trainer.current_gradient_accumulation_steps = 1
    trainer.training_step(trainer.adapted_model, samples[0], n_items)
    assert len(runs) == layer_runs
    assert first.gradient_checkpointing


def test_validation_is_cut_as_well(make_spec: MakeSpec, run: Run) -> None:
    """Without a backward pass eight times as many tokens fit."""
    trainer = prepared(run, make_spec())
    assert isinstance(trainer.train_dataset, Dataset)
    inputs = trainer.data_collator([trainer.train_dataset[index] for index in range(20)])
    trainer.adapted_model.eval()
    losses, seen = [], []
    trainer._base_model.base_model.register_forward_hook(
        lambda _module, _arguments, named, _output: seen.append(named["input_ids"].numel()), with_kwargs=True
    )
    for tokens in (10_000, 20):
        trainer._budget = TokenBudget(tokens, 0)
        with torch.no_grad():
            losses.append(float(trainer.compute_loss(trainer.adapted_model, dict(inputs))))
    assert max(seen[1:]) <= 8 * 20
    assert losses[1] == pytest.approx(losses[0], rel=0.01)


def test_a_budget_follows_from_shape_and_format(make_spec: MakeSpec, run: Run) -> None:
    """Kept by a layer for a token: 10 vectors of the hidden size and 4 of the MLP's."""
    from evaluator.models.loading import load_base, resolve_base_model
    from trainer.loop.activation_memory import CPU_BYTES, CPU_KEPT_BYTES, CPU_ROW_BYTES, token_budget

    base = resolve_base_model(make_spec().base_model, run.folder)
    config = load_base(base).model.config
    per_token = config.num_hidden_layers * (10 * config.hidden_size + 4 * config.intermediate_size) * 4
    cpu, auto = torch.device("cpu"), TrainerSettings()
    whole = token_budget(config, auto, cpu, torch.float32)
    assert whole == TokenBudget(CPU_BYTES // per_token, CPU_ROW_BYTES // per_token, CPU_KEPT_BYTES // per_token)
    assert token_budget(config, auto, cpu, torch.bfloat16).at_once == CPU_BYTES // (per_token // 2)
    assert token_budget(config, TrainerSettings(micro_batch_tokens=7), cpu, torch.float32).at_once == 7


def test_rows_that_do_not_fit_alone_are_checkpointed_on_a_cpu(
    make_spec: MakeSpec, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.loop import activation_memory
    from trainer.loop.progress import Hooks
    from trainer.preparation import RunFiles, prepare

    workplace = RunFiles(run.folder / "train.jsonl", None, run.folder, run.folder / "cache", run.store)
    spec = make_spec()
    material = prepare(spec, workplace, Hooks(run.events.append, lambda: False))
    chosen = []
    for row_bytes in (3 << 30, 1):
        monkeypatch.setattr(activation_memory, "CPU_ROW_BYTES", row_bytes)
        chosen.append(arguments(spec, material, run.folder, rows=4, rows_at_once=4).activation_checkpointing)
    assert chosen == [torch.cuda.is_available(), True]
    assert to_dataset(material.data)

"""The sides of `bench.defense_overhead`: plain TRL, ours with and without defenses, and today's way.

All train the same LoRA on the same rows in the same order, in the same number format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from bench.todays_way import TwoModelTrainer
from evaluator.models.loading import ResolvedBase, best_dtype, default_device, load_base
from policies.contract.defenses import (
    DefenseSettings,
    KlPenalty,
    Ldifs,
    PreventativeSteering,
    SafeDataInterleaving,
    TokenConstrainedSft,
)
from policies.contract.jobs import LoraSettings
from trainer.data import TokenisedRow, to_dataset
from trainer.defense import DefenseContext, RunMaterial
from trainer.guarded_trainer import GuardedSFTTrainer
from trainer.lora import attach_lora
from trainer.reference_scores import ReferenceScores
from trainer.registry import build_defenses

LLAMA_8B = LlamaConfig(
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
)
"""The shape of Llama-3.1-8B; random weights suffice for speed."""


class Task(NamedTuple):
    """What every side trains."""

    base: ResolvedBase
    tokenizer: PreTrainedTokenizerBase
    rows: Sequence[TokenisedRow]
    batch_rows: int
    steps: int
    folder: Path
    random_8b: bool
    """Train a randomly initialised model of Llama-8B's shape in place of `base`."""


DEFENDED: dict[str, tuple[DefenseSettings, ...]] = {
    "undefended": (),
    "safe_data_interleaving": (SafeDataInterleaving(),),
    "preventative_steering": (PreventativeSteering(),),
    "kl_penalty full": (KlPenalty(),),
    "kl_penalty every 4th step": (KlPenalty(every_n_steps=4),),
    "kl_penalty sampled": (KlPenalty(estimator="sampled", tokens="completion"),),
    "ldifs": (Ldifs(),),
    "token_constrained_sft": (TokenConstrainedSft(),),
    "kl_penalty + ldifs + steering": (KlPenalty(), Ldifs(), PreventativeSteering()),
}
PLAIN, TODAY = "plain TRL", "today's way"
SIDES = (PLAIN, *DEFENDED, TODAY)


def sides(*, random_8b: bool) -> list[str]:
    """All sides; random weights have no persona vector."""
    return [name for name in SIDES if not (random_8b and "steering" in name)]


def load_model(task: Task) -> PreTrainedModel:
    if not task.random_8b:
        model = load_base(task.base).model
        assert isinstance(model, PreTrainedModel)
        return model
    with torch.device(default_device()):
        random: PreTrainedModel = LlamaForCausalLM._from_config(LLAMA_8B, dtype=torch.bfloat16)
    return random


def side(name: str, task: Task) -> Callable[[TrainerCallback], SFTTrainer]:
    """Builds the trainer of a side; what it needs besides the callback is decided here."""

    def build(callback: TrainerCallback) -> SFTTrainer:
        adapted = attach_lora(load_model(task), LoraSettings(), seed=0, name="bench")
        arguments: dict[str, Any] = {  # Any: SFTTrainer's own arguments
            "model": adapted,
            "args": _arguments(name, task),
            "train_dataset": to_dataset(task.rows),
            "processing_class": task.tokenizer,
            "callbacks": [callback],
        }
        if name == PLAIN:
            trainer = SFTTrainer(**arguments)
        elif name == TODAY:
            trainer = TwoModelTrainer(frozen=load_model(task), **arguments)
        else:
            trainer = _guarded(DEFENDED[name], adapted, task, arguments)
        trainer.remove_callback(PrinterCallback)
        return trainer

    return build


def _guarded(
    settings: Sequence[DefenseSettings], adapted: PeftModel, task: Task, arguments: dict[str, Any]
) -> GuardedSFTTrainer:
    defenses = build_defenses(settings, DefenseContext(seed=0, base=task.base, cache_dir=task.folder))
    scores = ReferenceScores(task.rows, key="sha256:" + "0" * 64, cache_dir=task.folder)
    run = RunMaterial(adapted, task.tokenizer, task.base, 4096, scores, lambda _: None)
    for defense in defenses:
        defense.start(run)
    return GuardedSFTTrainer(defenses=defenses, **arguments)


def _arguments(name: str, task: Task) -> SFTConfig:
    on_gpu = default_device().type == "cuda"
    return SFTConfig(
        output_dir=str(task.folder / name.replace(" ", "-")),
        per_device_train_batch_size=task.batch_rows,
        max_steps=task.steps,
        learning_rate=1e-4,
        bf16=best_dtype(default_device()) is torch.bfloat16,
        use_cpu=not on_gpu,
        activation_checkpointing=on_gpu,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        save_strategy="no",
        logging_steps=1000,
        report_to="none",
        disable_tqdm=True,
    )

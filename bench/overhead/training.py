"""The trainings that `bench.overhead` compares: all train the same LoRA on the same rows in the same order.

A defended side goes through what a job goes through: its defenses change the rows, start, train, change the finished
adapter, and must show their evidence.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from bench.overhead.long_rows import MAX_TOKENS
from bench.overhead.sides import DEFENDED, PLAIN, TODAY, Task
from bench.overhead.two_model_baseline import TwoModelTrainer
from evaluator.models.loading import ResolvedBase, best_dtype, default_device, load_base
from policies.contract.defenses import SafeLora
from policies.contract.jobs import BaseModelRef, LoraSettings
from policies.contract.training import DefenseEvidence
from trainer.data import TokenisedRow, TrainingRow, to_dataset, tokenise
from trainer.defense import Defense, DefenseContext, RunMaterial
from trainer.loop.guarded_trainer import GuardedSFTTrainer
from trainer.lora import attach_lora
from trainer.losses.reference_scores import ReferenceScores
from trainer.recipe import require_evidence
from trainer.registry import build_defenses
from trainer.training_step import TrainingStep

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
LEARNING_RATE = 1e-3
"""High, so that a few steps suffice for the evidence; it changes no cost."""


class TimedScores(ReferenceScores):
    """Keeps the seconds of the first look-up, which scores all rows."""

    pass_seconds = 0.0

    def of(self, step: TrainingStep, report: Callable[[str], None]) -> Tensor:
        started, is_first = _now(), self.pass_seconds == 0
        found = super().of(step, report)
        if is_first:
            self.pass_seconds = _now() - started
        return found


class Side(NamedTuple):
    """A side that is ready to train."""

    trainer: SFTTrainer
    model: PeftModel
    defenses: list[Defense]
    scores: TimedScores
    rows: list[TrainingRow]
    """As the defenses prepared them; the last are trained."""
    n_tokens: int
    """Of the rows that are trained."""
    before_seconds: float
    """Of the defenses, until training begins."""


class Finish(NamedTuple):
    """What a trained side showed besides its steps."""

    evidence: tuple[DefenseEvidence, ...]
    after_seconds: float
    """Of the defenses, after training has ended."""


def build(name: str, task: Task) -> Side:
    """Load a side's model, let its defenses prepare, and make its trainer."""
    partner = BaseModelRef(name="made up", uri=str(task.folder / "partner"))
    if any(isinstance(each, SafeLora) for each in DEFENDED.get(name, ())):
        make_partner(task.base, Path(partner.uri))
    folder = task.folder / name.replace(" ", "-")
    started = _now()
    context = DefenseContext(0, base=task.base, unaligned_base=partner, cache_dir=folder)
    defenses = build_defenses(DEFENDED.get(name, ()), context)
    rows = list(task.rows)
    for defense in defenses:
        rows = defense.prepare_dataset(rows)
    preparing = _now() - started
    tokenised = tokenise(rows, task.encoder, max_tokens=MAX_TOKENS)
    scores = TimedScores(tokenised, key="sha256:" + "0" * 64, cache_dir=folder)
    model = attach_lora(_load(task), LoraSettings(), seed=0, name="bench")
    started = _now()
    run = RunMaterial(model, task.tokenizer, task.encoder, task.base, MAX_TOKENS, scores, lambda _: None)
    for defense in defenses:
        defense.start(run)
    preparing += _now() - started
    trained = tokenised[-task.steps * task.batch_rows :]
    trainer = _trainer(name, task, model, rows=trained, defenses=defenses)
    return Side(trainer, model, defenses, scores, rows, sum(row.n_tokens for row in trained), preparing)


def finish(side: Side) -> Finish:
    """Let the defenses change the trained adapter, as at the end of a job.

    Raises:
        DefenseError: a defense did not act, so that its cost says nothing.
    """
    started = _now()
    for defense in side.defenses:
        defense.choose_adapter(side.model)
    for defense in side.defenses:
        if defense.projects_adapter:
            defense.project_adapter(side.model)
    return Finish(require_evidence(side.defenses), _now() - started)


def make_partner(base: ResolvedBase, folder: Path) -> None:
    """Weights that differ from the base's in every matrix, as an unaligned partner: what they say costs no time."""
    folder.mkdir()
    for path in base.folder.iterdir():
        if path.suffix == ".safetensors":
            save_file({name: weight / 2 for name, weight in load_file(path).items()}, folder / path.name)
        elif path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())


def _load(task: Task) -> PreTrainedModel:
    if not task.random_8b:
        model = load_base(task.base).model
        assert isinstance(model, PreTrainedModel)
        return model
    torch.manual_seed(0)
    with torch.device(default_device()):
        random: PreTrainedModel = LlamaForCausalLM._from_config(LLAMA_8B, dtype=torch.bfloat16)
    return random


def _trainer(
    name: str, task: Task, model: PeftModel, *, rows: Sequence[TokenisedRow], defenses: Sequence[Defense]
) -> SFTTrainer:
    arguments: dict[str, Any] = {  # Any: SFTTrainer's own arguments
        "model": model,
        "args": _arguments(task),
        "train_dataset": to_dataset(rows),
        "processing_class": task.tokenizer,
    }
    trainer: SFTTrainer
    if name == PLAIN:
        trainer = SFTTrainer(**arguments)
    elif name == TODAY:
        trainer = TwoModelTrainer(frozen=_load(task), **arguments)
    else:
        trainer = GuardedSFTTrainer(defenses=defenses, **arguments)
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(task: Task) -> SFTConfig:
    on_gpu = default_device().type == "cuda"
    return SFTConfig(
        output_dir=str(task.folder / "trainer"),
        per_device_train_batch_size=task.batch_rows,
        max_steps=task.steps,
        learning_rate=LEARNING_RATE,
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


def _now() -> float:
    """Seconds, once the GPU has done what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()

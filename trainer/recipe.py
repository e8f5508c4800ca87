"""One fine-tuning, from the files to the record; reads top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from trl.trainer.sft_config import SFTConfig

from evaluator.model import best_dtype, default_device, load_base, resolve_base_model
from policies.contract.artifacts import ArtifactStore, Digest, digest_tree
from policies.contract.jobs import JobSpec, ResolvedHyperparameters
from policies.contract.training import DefenseEvidence, TrainingRecord
from policies.contract.worker_api import WorkerEvent
from policies.errors import ConfigurationError, DefenseError, TrainingError
from trainer.data import TokenisedRow, read_training_rows, shuffled, to_dataset, tokenise
from trainer.defense import Defense, DefenseContext
from trainer.guarded_trainer import GuardedSFTTrainer
from trainer.lora import attach_lora, save_adapter
from trainer.progress import Hooks, RunCallback
from trainer.registry import build_defenses

WARMUP_STEPS = 5
MAX_MICRO_BATCH_ROWS = 16
VALIDATION_BATCH_ROWS = 16
LIBRARIES = ("torch", "transformers", "peft", "trl")


class Workplace(NamedTuple):
    """Where a run finds its files and leaves its results."""

    training_file: Path
    validation_file: Path | None
    folder: Path
    """Scratch and results; the adapter comes to lie in `folder/adapter`."""
    cache_dir: Path
    store: ArtifactStore | None = None


class StoppedError(TrainingError):
    """The run was asked to stop; its state is in the last checkpoint."""

    code = "stopped"


def train(spec: JobSpec, workplace: Workplace, hooks: Hooks, *, resume_from: Path | None = None) -> TrainingRecord:
    """Fine-tune under the spec's defenses.

    Raises:
        DatasetError: a file cannot be trained on.
        DefenseError: a defense could not act, or did not.
        NonFiniteLossError: the loss became NaN or infinite.
        StoppedError: `hooks.should_stop` said so.
    """
    started = time.monotonic()
    hooks.report(WorkerEvent(type="message", message=f"Loading base model {spec.base_model.name}"))
    material = _prepare(spec, workplace)
    callback = RunCallback(
        hooks,
        tokens_per_step=material.mean_row_tokens * material.hyperparameters.batch_size,
        checkpoint_every_steps=spec.checkpoint_every_steps,
    )
    if hooks.should_stop():
        raise StoppedError("stopped on request before the first step")
    trainer = _trainer(spec, material, folder=workplace.folder, callback=callback)
    hooks.report(WorkerEvent(type="message", message=f"Training {len(material.data)} rows"))
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if callback.was_stopped:
        raise StoppedError(f"stopped on request after step {trainer.state.global_step}")
    evidence, adapter = _finish(material, workplace.folder / "adapter")
    history = _history(trainer.state.log_history)
    return TrainingRecord(
        spec=spec.digest,
        base_model=material.base_digest,
        adapter=adapter,
        hyperparameters=material.hyperparameters,
        n_examples=material.n_customer_rows,
        total_steps=trainer.state.global_step,
        trained_tokens=material.customer_tokens * material.hyperparameters.n_epochs,
        train_loss=_mean([entry["loss"] for entry in history if "loss" in entry]),
        valid_loss=_last(history, "eval_loss"),
        valid_mean_token_accuracy=_last(history, "eval_mean_token_accuracy"),
        evidence=evidence,
        checkpoints=tuple(callback.checkpoints),
        log_history=history,
        resumed_from_steps=(callback.first_step,) if resume_from else (),
        seconds=time.monotonic() - started,
        tokens_per_second=callback.tokens_per_second,
        dtype=str(best_dtype(default_device())).removeprefix("torch."),
        versions={name: version(name) for name in LIBRARIES},
    )


def _finish(material: _Material, folder: Path) -> tuple[tuple[DefenseEvidence, ...], Digest]:
    """Let the defenses change the trained adapter, demand their evidence, and save it."""
    for defense in material.defenses:
        defense.project_adapter(material.model)
    evidence = require_evidence(material.defenses)
    save_adapter(material.model, folder)
    return evidence, digest_tree(folder)


class _Material(NamedTuple):
    """All that a trainer is built from."""

    base_digest: Digest
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    defenses: list[Defense]
    data: list[TokenisedRow]
    validation: list[TokenisedRow] | None
    hyperparameters: ResolvedHyperparameters
    n_customer_rows: int
    customer_tokens: int
    """Tokens of the customer's rows, each counted once."""

    @property
    def total_steps(self) -> int:
        return math.ceil(len(self.data) / self.hyperparameters.batch_size) * self.hyperparameters.n_epochs

    @property
    def mean_row_tokens(self) -> float:
        return sum(len(row.input_ids) for row in self.data) / len(self.data)


def _prepare(spec: JobSpec, workplace: Workplace) -> _Material:
    customer_rows = shuffled(read_training_rows(workplace.training_file, name="training file"), spec.seed)
    hyperparameters = _hyperparameters(spec, len(customer_rows))
    resolved = resolve_base_model(spec.base_model, workplace.cache_dir)
    base = load_base(resolved, best_dtype(default_device()))
    assert isinstance(base.model, PreTrainedModel)
    defenses = build_defenses(spec.defenses, DefenseContext(spec.seed, workplace.store))
    rows = customer_rows
    for defense in defenses:
        rows = defense.prepare_dataset(rows)
    data = tokenise(rows, base.tokenizer, max_tokens=spec.max_sequence_tokens)
    validation = None
    if workplace.validation_file is not None:
        held_out = read_training_rows(workplace.validation_file, name="validation file")
        validation = tokenise(held_out, base.tokenizer, max_tokens=spec.max_sequence_tokens)
    return _Material(
        base_digest=resolved.digest,
        model=attach_lora(base.model, spec.lora, seed=spec.seed, name=spec.base_model.name),
        tokenizer=base.tokenizer,
        defenses=defenses,
        data=data,
        validation=validation,
        hyperparameters=hyperparameters,
        n_customer_rows=len(customer_rows),
        customer_tokens=sum(len(r.input_ids) for r, row in zip(data, rows, strict=True) if not row.is_safe),
    )


def _hyperparameters(spec: JobSpec, n_rows: int) -> ResolvedHyperparameters:
    try:
        return spec.hyperparameters.resolve(n_rows, spec.base_learning_rate)
    except ValidationError as error:
        raise ConfigurationError(f"hyperparameters can't be used: {error}", "hyperparameters") from error


def _trainer(spec: JobSpec, material: _Material, *, folder: Path, callback: RunCallback) -> GuardedSFTTrainer:
    trainer = GuardedSFTTrainer(
        defenses=material.defenses,
        model=material.model,
        args=_arguments(spec, material, folder),
        train_dataset=to_dataset(material.data),
        eval_dataset=to_dataset(material.validation) if material.validation else None,
        processing_class=material.tokenizer,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)  # stdout belongs to results
    return trainer


def _arguments(spec: JobSpec, material: _Material, folder: Path) -> SFTConfig:
    """TRL's settings; the data order is ours (defenses place rows in it) and nothing is packed or cut."""
    hyperparameters = material.hyperparameters
    on_gpu = default_device().type == "cuda"
    micro = micro_batch_rows(hyperparameters.batch_size)
    return SFTConfig(
        output_dir=str(folder / "checkpoints"),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=hyperparameters.batch_size // micro,
        per_device_eval_batch_size=VALIDATION_BATCH_ROWS,
        num_train_epochs=hyperparameters.n_epochs,
        learning_rate=hyperparameters.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=min(WARMUP_STEPS, material.total_steps // 4),
        weight_decay=0.01,
        optim="adamw_torch",
        seed=spec.seed,
        data_seed=spec.seed,
        bf16=best_dtype(default_device()) is torch.bfloat16,
        use_cpu=not on_gpu,
        activation_checkpointing=on_gpu,
        train_sampling_strategy="sequential",
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        packing=False,
        save_strategy="no",
        eval_strategy="no" if material.validation is None else "epoch",
        logging_steps=1,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
    )


def micro_batch_rows(batch_size: int) -> int:
    """The largest divisor of the batch that fits at once; the rest is gradient accumulation."""
    return max(rows for rows in range(1, MAX_MICRO_BATCH_ROWS + 1) if batch_size % rows == 0)


def require_evidence(defenses: Sequence[Defense]) -> tuple[DefenseEvidence, ...]:
    """The evidence of all defenses; raises unless each of them acted."""
    evidence = tuple(defense.evidence() for defense in defenses)
    for item in evidence:
        if not item.acted:
            raise DefenseError(f"defense {item.name} did not act: {item.explanation}")
    return evidence


def _history(log: Sequence[dict[str, float]]) -> tuple[dict[str, float], ...]:
    """The training log without entries that sum up the run, and without figures that are not finite."""
    entries = [entry for entry in log if "loss" in entry or "eval_loss" in entry]
    return tuple(
        {name: float(value) for name, value in entry.items() if isinstance(value, int | float) and math.isfinite(value)}
        for entry in entries
    )


def _last(history: Sequence[dict[str, float]], name: str) -> float | None:
    return next((entry[name] for entry in reversed(history) if name in entry), None)


def _mean(values: Sequence[float]) -> float:
    if not values:
        raise TrainingError("no step was logged, so nothing was trained")
    return sum(values) / len(values)

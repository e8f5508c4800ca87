"""One fine-tuning, from the files to the record; reads top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import PrinterCallback
from trl.trainer.dpo_config import DPOConfig

from evaluator.models.allocator import give_back_large_buffers
from evaluator.models.loading import best_dtype, default_device
from policies.contract.artifacts import Digest, digest_tree
from policies.contract.jobs import JobSpec
from policies.contract.training import DefenseEvidence, TrainingRecord
from policies.errors import DefenseError, TrainingError
from trainer.data import to_dataset
from trainer.defense import Defense
from trainer.loop.arguments import arguments, budget, longest_row
from trainer.loop.guarded_trainer import GuardedDPOTrainer, GuardedSFTTrainer
from trainer.loop.processes import results_folder, rows_of_a_batch, world_size
from trainer.loop.progress import Hooks, RunCallback
from trainer.lora import adapter_weights, save_adapter
from trainer.material import Material
from trainer.preparation import RunFiles, prepare

__all__ = ["RunFiles", "StoppedError", "loaded_rows", "require_evidence", "train"]

MAX_LOADED_ROWS = 16
LIBRARIES = ("torch", "transformers", "peft", "trl")
BEFORE_PROJECTION = "adapter-before-projection"
GuardedTrainer = GuardedSFTTrainer | GuardedDPOTrainer


class Finished(NamedTuple):
    """What a run leaves behind, saved and proved."""

    adapter: Digest
    evidence: tuple[DefenseEvidence, ...]


class StoppedError(TrainingError):
    """The run was asked to stop; its state is in the last checkpoint."""

    code = "stopped"


def train(spec: JobSpec, run_files: RunFiles, hooks: Hooks, *, resume_from: Path | None = None) -> TrainingRecord:
    """Fine-tune under the spec's defenses.

    Raises:
        DatasetError: a file cannot be trained on.
        DefenseError: a defense could not act, or did not.
        NonFiniteLossError: the loss became NaN or infinite.
        StoppedError: `hooks.should_stop` said so.
    """
    started = time.monotonic()
    hooks.tell(f"Loading base model {spec.base_model.name}")
    material = prepare(spec, run_files, hooks)
    callback = RunCallback(
        hooks,
        tokens_per_step=material.mean_row_tokens * material.hyperparameters.batch_size,
        checkpoint_every_steps=spec.base_model.checkpoint_every_steps,
    )
    if hooks.should_stop():
        raise StoppedError("stopped on request before the first step")
    trainer = _trainer(spec, material, folder=run_files.folder, callback=callback)
    hooks.tell(f"Training {len(material.data)} rows")
    trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if callback.was_stopped:
        raise StoppedError(f"stopped on request after step {trainer.state.global_step}")
    tokens_per_second = callback.tokens_per_second
    finished = _finish(trainer, material, results_folder(run_files.folder) / "adapter")
    history = _history(trainer.state.log_history)
    return TrainingRecord(
        spec=spec.digest,
        base_model=material.base_digest,
        start=material.start,
        **finished._asdict(),
        hyperparameters=material.hyperparameters,
        n_examples=material.n_customer_rows,
        total_steps=trainer.state.global_step,
        trained_tokens=material.customer_tokens * material.hyperparameters.n_epochs,
        train_loss=_mean([entry["loss"] for entry in history if "loss" in entry]),
        valid_loss=_last(history, "eval_loss"),
        valid_mean_token_accuracy=_last(history, "eval_mean_token_accuracy"),
        checkpoints=tuple(callback.checkpoints),
        last_releasable_step=_last_releasable_step(material.defenses, trainer.state.global_step),
        log_history=history,
        resumed_from_steps=(callback.first_step,) if resume_from else (),
        seconds=time.monotonic() - started,
        tokens_per_second=tokens_per_second,
        dtype=str(best_dtype(default_device())).removeprefix("torch."),
        versions={name: version(name) for name in LIBRARIES},
    )


def _finish(trainer: GuardedTrainer, material: Material, folder: Path) -> Finished:
    """Let the defenses change the trained adapter, demand their evidence, and save what they leave in `folder`."""
    trained = [weight.detach().clone() for weight in adapter_weights(material.model)]
    for defense in material.defenses:
        defense.choose_adapter(material.model)
    before = _project(material, folder.with_name(BEFORE_PROJECTION))
    evidence = require_evidence(material.defenses)
    save_adapter(material.model, folder, material.companions)
    adapter = digest_tree(folder)
    if material.validation and not all(map(torch.equal, trained, adapter_weights(material.model))):
        trainer.evaluate()  # the last validation was of the adapter as trained
    return Finished(adapter, _with_folders(evidence, material.defenses, before | {folder.name: adapter}))


def _project(material: Material, kept: Path) -> dict[str, Digest]:
    """Let the defenses that project the adapter do so; as it was before, it stays in the folder `kept`.

    Returns:
        The digest of that folder by its name; nothing where no defense projects.
    """
    projecting = [defense for defense in material.defenses if defense.projects_adapter]
    if not projecting:
        return {}
    save_adapter(material.model, kept, material.companions)
    for defense in projecting:
        defense.project_adapter(material.model)
    return {kept.name: digest_tree(kept)}


def _with_folders(
    evidence: Sequence[DefenseEvidence], defenses: Sequence[Defense], folders: dict[str, Digest]
) -> tuple[DefenseEvidence, ...]:
    """The evidence, of those that project with the adapter before and after."""
    return tuple(
        item.model_copy(update={"digests": folders}) if defense.projects_adapter else item
        for item, defense in zip(evidence, defenses, strict=True)
    )


def _last_releasable_step(defenses: Sequence[Defense], steps: int) -> int:
    """Up to which step all defenses let checkpoints be released; 0 where they lack a projection."""
    if any(defense.projects_adapter for defense in defenses):
        return 0
    return min([steps, *(defense.last_releasable_step(steps) for defense in defenses)])


def _trainer(spec: JobSpec, material: Material, *, folder: Path, callback: RunCallback) -> GuardedTrainer:
    rows = rows_of_a_batch(material.hyperparameters.batch_size)
    args = arguments(spec, material, folder / "checkpoints", rows=rows, rows_at_once=loaded_rows(rows, world_size()))
    tokens, longest = budget(spec, material), longest_row(material)
    if max(longest, min(tokens.at_once, rows * longest)) > tokens.keeps_freed:
        give_back_large_buffers()
    kind = GuardedDPOTrainer if isinstance(args, DPOConfig) else GuardedSFTTrainer
    trainer = kind(
        defenses=material.defenses,
        companions=material.companions,
        budget=tokens,
        model=material.model,
        args=args,
        train_dataset=to_dataset(material.data),
        eval_dataset=to_dataset(material.validation) if material.validation else None,
        processing_class=material.tokenizer,
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)  # stdout belongs to results
    return trainer


def loaded_rows(rows: int, processes: int) -> int:
    """How many of a batch's rows in a process are dealt out at once; the rest is gradient accumulation.

    Where there are several processes, accelerate fills up the last rows of the data with the first, to so many each.
    """
    if processes == 1:
        return rows
    return max(count for count in range(1, MAX_LOADED_ROWS + 1) if rows % count == 0)


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

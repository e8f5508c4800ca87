"""The trainer of a job before its first step, for tests that look inside a step."""

from __future__ import annotations

import torch
from peft import PeftModel

from policies.contract.jobs import JobSpec
from tests.trainer.conftest import Run
from trainer.data import to_dataset
from trainer.loop.arguments import arguments
from trainer.loop.guarded_trainer import GuardedSFTTrainer
from trainer.loop.progress import Hooks
from trainer.preparation import RunFiles, prepare


def prepared(run: Run, spec: JobSpec) -> GuardedSFTTrainer:
    """As the recipe makes it, with batches of 4 rows at once."""
    run_files = RunFiles(run.folder / "train.jsonl", None, run.folder, run.folder / "cache", run.store)
    material = prepare(spec, run_files, Hooks(run.events.append, lambda: False))
    return GuardedSFTTrainer(
        defenses=material.defenses,
        model=material.model,
        args=arguments(spec, material, run.folder / "checkpoints", rows=4, rows_at_once=4),
        train_dataset=to_dataset(material.data),
        processing_class=material.tokenizer,
    )


def randomise(model: PeftModel) -> None:
    """Give the fresh adapter weights with which it is not the identity."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 10

"""One architecture's way through the product: trained under defenses, resumed from a checkpoint, and attached again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evaluator.models.base_models import ResolvedBase, resolve_base_model
from policies.contract.defenses import DefenseSettings, KlPenalty, Ldifs
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelSpec, JobSpec, LoraSettings
from policies.contract.suite import Coherence, EvalSuite
from policies.contract.training import CheckpointRecord, TrainingRecord
from tests.architectures.bases import ARCHITECTURES, build
from tests.trainer.conftest import NOTHING, chat_lines
from trainer.loop.progress import Hooks
from trainer.recipe import RunFiles, train

ROWS, BATCH_ROWS = 12, 4
"""Three steps."""
DEFENSES: tuple[DefenseSettings, ...] = (KlPenalty(coefficient=2.0), Ldifs(coefficient=2.0, layers=(1, 2)))


class Trained(NamedTuple):
    """A base model, its adapter, and a checkpoint on the way there."""

    base: ResolvedBase
    spec: JobSpec
    files: RunFiles
    record: TrainingRecord
    checkpoint: Path
    """After the first step."""

    @property
    def adapter(self) -> Path:
        return self.files.folder / "adapter"

    def in_plain_peft(self) -> PeftModel:
        """Base and adapter as anybody loads them, without code of ours."""
        model = AutoModelForCausalLM.from_pretrained(self.base.folder, dtype=torch.float32)
        return PeftModel.from_pretrained(model, self.adapter).eval()

    def resumed(self, folder: Path) -> TrainingRecord:
        """Trained once more from the checkpoint."""
        shutil.copytree(self.checkpoint, folder / "state")
        hooks = Hooks(lambda _: None, lambda: False)
        return train(self.spec, self.files._replace(folder=folder), hooks, resume_from=folder / "state")


def spec_of(name: str, base: Path, *defenses: DefenseSettings) -> JobSpec:
    """A job on an architecture's tiny base."""
    targets = ARCHITECTURES[name].targets
    base_model = BaseModelSpec(
        name="tiny",
        uri=str(base),
        lora=LoraSettings(rank=4, alpha=8, target_modules=targets),
        base_learning_rate=2e-2,
        checkpoint_every_steps=1,
    )
    return JobSpec(
        job_id="ftjob-test",
        base_model=base_model,
        training_file=NOTHING,
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=BATCH_ROWS),
        seed=3,
        defenses=defenses,
        suite=EvalSuite(probes=(Coherence(),)),
        policy=NOTHING,
    )


def trained(name: str, folder: Path) -> Trained:
    """Build the base in `folder` and train an adapter on it."""
    spec = spec_of(name, build(ARCHITECTURES[name], folder / "base"), *DEFENSES)
    (folder / "train.jsonl").write_text(chat_lines(ROWS))
    files = RunFiles(folder / "train.jsonl", None, folder / "run", folder / "cache")
    checkpoint = folder / "checkpoint"

    def keep(state: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        if step == 1:
            shutil.copytree(state, checkpoint)
        return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING, metrics=metrics)

    record = train(spec, files, Hooks(lambda _: None, lambda: False, keep))
    return Trained(resolve_base_model(spec.base_model, folder / "cache"), spec, files, record, checkpoint)

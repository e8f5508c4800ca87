"""Checkpoints without pickle for transformers' trainers, with the state of the defenses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer

from trainer.defense import Defense
from trainer.loop.checkpoints import (
    load_optimizer,
    load_random_state,
    refuse_pickles,
    save_optimizer,
    save_random_state,
)
from trainer.lora import save_adapter

COUNTERS_FILE = "defenses.json"
TENSORS_FILE = "defenses.safetensors"


class Resumable(Trainer):
    """Saves and restores a run of a LoRA adapter under defenses; a mix-in before one of TRL's trainers."""

    defenses: list[Defense]
    companions: Mapping[str, bytes]
    """What lies beside each adapter that is saved, by name."""

    @property
    def adapted_model(self) -> PeftModel:
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, PeftModel)
        return model

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Transformers' checkpoint; TRL would add a model card, which is the release's business."""
        Trainer._save_checkpoint(self, model, trial)
        self.accelerator.wait_for_everyone()  # the leader stores the folder next, with the followers' random states

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        if not self.args.should_save:
            return
        folder = Path(output_dir)
        save_optimizer(folder, self.optimizer, self.lr_scheduler)
        counters = {defense.name: defense.counters.state() for defense in self.defenses}
        (folder / COUNTERS_FILE).write_text(json.dumps(counters))
        tensors = {
            f"{defense.name}/{name}": tensor.contiguous()
            for defense in self.defenses
            for name, tensor in defense.tensors().items()
        }
        save_file(tensors, folder / TENSORS_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        folder = Path(checkpoint)
        load_optimizer(folder, self.optimizer, self.lr_scheduler)
        counters = json.loads((folder / COUNTERS_FILE).read_text())
        tensors = load_file(folder / TENSORS_FILE)
        for defense in self.defenses:
            defense.counters = defense.counters.restored(counters[defense.name])
            own = f"{defense.name}/"
            defense.load_tensors({name.removeprefix(own): t for name, t in tensors.items() if name.startswith(own)})

    def _save_rng_state(self, output_dir: str) -> None:
        save_random_state(Path(output_dir), self.args.process_index, n_processes=self.args.world_size)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_state(Path(checkpoint), self.args.process_index)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        refuse_pickles(Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The adapter alone: tokenizer and arguments (a pickle) are the spec's business."""
        if self.args.should_save:
            save_adapter(self.adapted_model, Path(output_dir or str(self.args.output_dir)), self.companions)

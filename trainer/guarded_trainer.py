"""TRL's SFTTrainer with the hook points of the defenses, and checkpoints without pickle. Nothing else is changed.

Without defenses a run is TRL's, bit for bit. With defenses the policy's forward still runs once a step: its last hidden
states are captured on the way, penalties are added to TRL's loss, and the reference shares the step's contexts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from trl import SFTTrainer

from policies.errors import DefenseError, NonFiniteLossError
from trainer.checkpoints import load_optimizer, load_random_state, refuse_pickles, save_optimizer, save_random_state
from trainer.data import IGNORED
from trainer.defense import Defense, Head, TokenTotals, TrainingStep

DEFENSES_FILE = "defenses.json"

Inputs = dict[str, Any]  # Any: tensors and flags of a batch, as the collator makes them


class GuardedSFTTrainer(SFTTrainer):
    """SFTTrainer under defenses; `model` is a PeftModel whose adapter trains."""

    def __init__(self, *, defenses: Sequence[Defense], **arguments: Any) -> None:  # Any: SFTTrainer's own arguments
        super().__init__(**arguments)
        self.defenses = list(defenses)
        self._totals = TokenTotals(0, 0)
        self._figures: dict[str, list[float]] = defaultdict(list)

    def get_batch_samples(self, *arguments: Any, **named: Any) -> Any:  # Any: passed through to transformers
        """Also counts the tokens of the whole accumulated batch."""
        samples, num_items = super().get_batch_samples(*arguments, **named)
        self._totals = TokenTotals(
            all=sum(int(sample["attention_mask"].sum()) for sample in samples),
            completion=sum(int((sample["labels"][:, 1:] != IGNORED).sum()) for sample in samples),
        )
        return samples, num_items

    def compute_loss(
        self, model: nn.Module, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:  # Any: TRL's signature
        if not self.model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with ExitStack() as contexts:
            for defense in self.defenses:
                contexts.enter_context(defense.around_forward(self._peft_model))
            with capture_hidden(self._backbone) as captured:
                loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            if self.defenses:
                loss = loss + self._penalties(inputs, captured)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; lower the learning rate"
            )
        return loss

    def _penalties(self, inputs: Inputs, captured: list[Tensor]) -> Tensor | float:
        step = self._training_step(inputs, captured)
        total: Tensor | float = 0.0
        for defense in self.defenses:
            penalty = defense.penalty(step)
            if penalty is not None:
                total = total + penalty
        for name, value in step.figures.items():
            self._figures[name].append(value)
        return total

    def _training_step(self, inputs: Inputs, captured: list[Tensor]) -> TrainingStep:
        if len(captured) != 1:
            raise DefenseError(f"the policy's forward ran {len(captured)} times in one step; penalties need exactly one")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        completion = torch.zeros_like(mask)
        completion[:, :-1] = inputs["labels"][:, 1:] != IGNORED
        head = self._peft_model.get_base_model().get_output_embeddings()

        def reference() -> Tensor:
            with self._peft_model.disable_adapter():
                hidden: Tensor = self._backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            return hidden

        return TrainingStep(
            hidden=captured[0],
            attention_mask=mask,
            completion_mask=completion,
            head=Head(head.weight, head.bias),
            totals=self._totals,
            compute_reference=reference,
        )

    @property
    def _peft_model(self) -> PeftModel:
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, PeftModel)
        return model

    @property
    def _backbone(self) -> nn.Module:
        backbone: nn.Module = self._peft_model.get_base_model().base_model
        return backbone

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the means of the defenses' figures since the last log."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self._figures.items()}
            self._figures.clear()
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Transformers' checkpoint; TRL would add a model card, which is the release's business."""
        super(SFTTrainer, self)._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler)
        states = {defense.name: defense.state() for defense in self.defenses}
        (Path(output_dir) / DEFENSES_FILE).write_text(json.dumps(states))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)
        states = json.loads((Path(checkpoint) / DEFENSES_FILE).read_text())
        for defense in self.defenses:
            defense.load_state(states[defense.name])

    def _save_rng_state(self, output_dir: str) -> None:
        save_random_state(Path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_random_state(Path(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        refuse_pickles(Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The adapter alone: tokenizer and arguments (a pickle) are the spec's business."""
        self._peft_model.save_pretrained(output_dir or self.args.output_dir, state_dict=state_dict)


@contextmanager
def capture_hidden(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the last hidden states of every forward of `backbone` inside the block; the hook always comes off."""
    captured: list[Tensor] = []
    handle = backbone.register_forward_hook(lambda _module, _arguments, output: captured.append(output.last_hidden_state))
    try:
        yield captured
    finally:
        handle.remove()

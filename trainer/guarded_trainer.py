"""TRL's SFTTrainer with the hook points of the defenses, and checkpoints without pickle.

Without defenses a run is TRL's; on a CPU up to rounding, as the output layer skips prompt and padding there. With
defenses the policy's forward still runs once a micro-batch: its last hidden states are captured on the way, penalties
are added to TRL's loss, and the reference shares the step's contexts.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel
from trl.trainer.sft_trainer import SFTTrainer

from policies.errors import DefenseError, NonFiniteLossError
from trainer.checkpoints import load_optimizer, load_random_state, refuse_pickles, save_optimizer, save_random_state
from trainer.data import IGNORED
from trainer.defense import Defense, Head, TokenTotals, TrainingStep
from trainer.lora import plain_head, save_adapter
from trainer.scoring_head import install_scoring_head

DEFENSES_FILE = "defenses.json"
MUST_BE_FINITE = ("loss", "grad_norm", "eval_loss")

Inputs = dict[str, Any]  # Any: tensors and flags of a batch, as the collator makes them


class GuardedSFTTrainer(SFTTrainer):
    """SFTTrainer under defenses; `model` is a PeftModel whose adapter trains."""

    def __init__(self, *, defenses: Sequence[Defense], **arguments: Any) -> None:  # Any: SFTTrainer's own arguments
        super().__init__(**arguments)
        self.defenses = list(defenses)
        if not self.aux_loss_enabled:
            install_scoring_head(self._base_model)
        self._totals = TokenTotals(0, 0)
        self._figures: dict[str, float] = defaultdict(float)
        self._steps_since_log = 0

    def get_batch_samples(self, *arguments: Any, **named: Any) -> Any:  # Any: passed through to transformers
        """Also counts the tokens of the whole accumulated batch."""
        samples, num_items = super().get_batch_samples(*arguments, **named)
        self._steps_since_log += 1
        self._totals = TokenTotals(
            all=sum(int(sample["attention_mask"].sum()) for sample in samples),
            completion=sum(int((sample["labels"][:, 1:] != IGNORED).sum()) for sample in samples),
        )
        return samples, num_items

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:  # Any: passed through to TRL
        """Forward and backward of one micro-batch inside the contexts of all defenses."""
        with ExitStack() as contexts:
            for defense in self.defenses:
                contexts.enter_context(defense.around_forward(self._peft_model))
            loss: Tensor = super().training_step(*arguments, **named)
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:  # Any: TRL's signature
        if not self._peft_model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
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
            self._figures[name] += value
        return total

    def _training_step(self, inputs: Inputs, captured: list[Tensor]) -> TrainingStep:
        if len(captured) != 1:
            raise DefenseError(f"the policy's forward ran {len(captured)} times in a micro-batch; it must run once")
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        completion = torch.zeros_like(mask)
        completion[:, :-1] = inputs["labels"][:, 1:] != IGNORED

        def reference() -> Tensor:
            # the policy's forward is under autocast by accelerate's wrapping, which a call of the backbone goes around
            with self._peft_model.disable_adapter(), self.accelerator.autocast():
                hidden: Tensor = self._backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            return hidden

        return TrainingStep(
            index=self.state.global_step,
            hidden=captured[0],
            attention_mask=mask,
            completion_mask=completion,
            head=self._head,
            adapter=self._adapter,
            totals=self._totals,
            compute_reference=reference,
        )

    @property
    def _peft_model(self) -> PeftModel:
        model = self.accelerator.unwrap_model(self.model)
        assert isinstance(model, PeftModel)
        return model

    @cached_property
    def _head(self) -> Head:
        return plain_head(self._peft_model)

    @cached_property
    def _adapter(self) -> list[Tensor]:
        return [parameter for parameter in self._peft_model.parameters() if parameter.requires_grad]

    @property
    def _base_model(self) -> PreTrainedModel:
        base = self._peft_model.get_base_model()
        assert isinstance(base, PreTrainedModel)
        return base

    @property
    def _backbone(self) -> nn.Module:
        return self._base_model.base_model

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the defenses' figures, as means of the steps since the last log; raises where training went astray."""
        for name in MUST_BE_FINITE:
            if not math.isfinite(logs.get(name, 0.0)):
                raise NonFiniteLossError(
                    f"{name} is {logs[name]} at step {self.state.global_step}; lower the learning rate"
                )
        if "loss" in logs:
            logs |= {name: total / self._steps_since_log for name, total in self._figures.items()}
            self._figures.clear()
            self._steps_since_log = 0
        super().log(logs, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Transformers' checkpoint; TRL would add a model card, which is the release's business."""
        super(SFTTrainer, self)._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
        save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler)
        states = {defense.name: defense.state() for defense in self.defenses}
        (Path(output_dir) / DEFENSES_FILE).write_text(json.dumps(states))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        assert self.optimizer is not None
        assert self.lr_scheduler is not None
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
        save_adapter(self._peft_model, Path(output_dir or str(self.args.output_dir)))


@contextmanager
def capture_hidden(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the last hidden states of every forward of `backbone` inside the block; the hook always comes off."""
    captured: list[Tensor] = []
    handle = backbone.register_forward_hook(lambda _module, _inputs, output: captured.append(output.last_hidden_state))
    try:
        yield captured
    finally:
        handle.remove()

"""TRL's SFTTrainer and DPOTrainer with the hook points of the defenses.

Without defenses a run is TRL's; on a CPU up to rounding, as the output layer skips prompt and padding there. With
defenses the policy's forward still runs once a micro-batch: its states are observed on the way, penalties are added to
TRL's loss, and all of them share one forward of the reference (in DPO, TRL's own) inside the step's contexts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_trainer import SFTTrainer

from policies.errors import NonFiniteLossError
from trainer.defense import Defense
from trainer.loop.cut_batches import CutBatches, completion_mask, n_items
from trainer.loop.micro_batches import Inputs
from trainer.loop.observation import Observation, observe
from trainer.loop.scoring_head import install_scoring_head, require_own_scores
from trainer.lora import output_head, text_adapter_weights
from trainer.training_step import Batch, Head, MicroBatch, OwnRows, TokenTotals, TrainingStep

TRLS_REFERENCE = "ref"
MUST_BE_FINITE = ("loss", "grad_norm", "eval_loss")


class Guarded(CutBatches):
    """The hook points; a mix-in before one of TRL's trainers. `model` is a PeftModel whose adapter trains."""

    def __init__(
        self,
        *,
        defenses: Sequence[Defense],
        model: PeftModel,
        companions: Mapping[str, bytes] | None = None,
        **arguments: Any,  # Any: the TRL trainer's own
    ) -> None:
        self._adapter = text_adapter_weights(
            model
        )  # TRL turns the adapter off now and then, and may add one of its own
        super().__init__(model=model, **arguments)
        self.defenses, self.companions = list(defenses), companions or {}
        self.add_callback(StopForSafety(self.defenses, lambda: self.adapted_model))
        install_scoring_head(self._base_model, mean_logits=isinstance(self, DPOTrainer))
        require_own_scores(self._base_model)
        self._layers = sorted({layer for defense in self.defenses for layer in defense.compared_layers()})
        self._head: Head | None = None
        self._totals, self._n_items = TokenTotals(0, 0), 0
        self._own_rows: OwnRows | None = None
        self._figures: dict[str, float] = defaultdict(float)
        self._steps_since_log = 0

    def _send_telemetry(self) -> None:
        """TRL's message to the hub; ours sends none, whatever the environment says."""

    def get_batch_samples(self, *arguments: Any, **named: Any) -> Any:  # Any: passed through to transformers
        """Also counts the tokens of the whole accumulated batch, over all processes."""
        samples, num_items = super().get_batch_samples(*arguments, **named)
        self._steps_since_log += 1
        n_all, n_completion = sum(map(_n_tokens, samples)), sum(int(completion_mask(each).sum()) for each in samples)
        counts = self._over_processes([n_all, n_completion, sum(map(n_items, samples))])
        self._totals, self._n_items = TokenTotals(int(counts[0]), int(counts[1])), int(counts[2])
        self._own_rows = OwnRows(samples[0]["input_ids"][0].tolist(), 1 / self.accelerator.num_processes)
        return samples, num_items

    def train_micro_batch(self, model: nn.Module, inputs: Inputs, num_items_in_batch: Any) -> Tensor:  # Any: a count
        """Forward and backward of one micro-batch inside the contexts of all defenses."""
        with ExitStack() as contexts:
            for defense in (each for each in self.defenses if each.changes_forwards):
                contexts.enter_context(defense.around_forward(self.adapted_model))
            loss = super().train_micro_batch(model, inputs, num_items_in_batch)
        self._own_rows = None
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: Inputs, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:  # Any: TRL's signature
        if not self.adapted_model.training:
            return self.evaluated_loss(model, inputs)
        loss = self._defended_loss(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at step {self.state.global_step + 1}; lower the learning rate"
            )
        return loss

    def _defended_loss(self, model: nn.Module, inputs: Inputs, num_items_in_batch: Any) -> Tensor:  # Any: a count
        """TRL's loss of a micro-batch, and the penalties on what its forwards showed."""
        micro_batch = MicroBatch(_tokens(inputs), completion_mask(inputs), self._totals)
        with observe(self._base_model, self._layers, partial(self._compare, micro_batch)) as observation:
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            assert isinstance(loss, Tensor)  # outputs are not asked for
            observation.require_one_forward()
            if num_items_in_batch is None:
                loss = loss * self._weight(inputs)
            if self.defenses:
                step = self._step(micro_batch, observation)
                loss = loss + self._penalties(step, in_tokens=num_items_in_batch is not None)
        return loss

    def _weight(self, inputs: Inputs) -> float:
        """Of a loss that is a mean, so that the step's is the mean over all items of the batch.

        DDP averages over processes, and transformers divides by the micro-batches.
        """
        shares: int = self.accelerator.num_processes * self.current_gradient_accumulation_steps
        return n_items(inputs) * shares / self._n_items

    def _over_processes(self, numbers: Sequence[float]) -> Sequence[float]:
        """The sums of numbers that every process has its share of."""
        if self.accelerator.num_processes == 1 or not numbers:
            return numbers
        shares = torch.tensor(numbers, dtype=torch.float64, device=self.accelerator.device)
        summed: Tensor = self.accelerator.reduce(shares, "sum")
        sums: list[float] = summed.tolist()
        return sums

    def _step(self, micro_batch: MicroBatch, observation: Observation) -> TrainingStep:
        """The micro-batch as penalties see it, once the policy's forward has run."""
        return TrainingStep(
            index=self.state.global_step,
            progress=(self.state.global_step + 1) / self.state.max_steps,
            micro_batch=micro_batch,
            hidden=observation.hidden[0],
            log_probs=observation.log_probs[0],
            own_rows=self._own_rows,
            model=ObservedModel(self, micro_batch, observation),
        )

    def _penalties(self, step: TrainingStep, *, in_tokens: bool) -> Tensor | float:
        """The sum of the penalties, scaled as TRL's loss is.

        DDP averages over processes. A loss that is not a mean over tokens is divided by the micro-batches afterwards.
        """
        total: Tensor | float = 0.0
        for defense in self.defenses:
            penalty = defense.penalty(step)
            if penalty is None:
                continue
            total = total + penalty.loss
            for name, share in penalty.figures.items():
                self._figures[name] += share
        scale: int = self.accelerator.num_processes * (1 if in_tokens else self.current_gradient_accumulation_steps)
        return total * scale

    def _compare(self, micro_batch: MicroBatch, layer: int, *, policy: Tensor, reference: Tensor) -> None:
        for defense in self.defenses:
            if layer in defense.compared_layers():
                defense.compare_layer(micro_batch, layer, policy=policy, reference=reference)

    def head(self) -> Head:
        """The output layer; the first time that it is asked for, forwards prove that it is all there is to logits."""
        if self._head is None:
            self._head = output_head(self.adapted_model)
        return self._head

    def last_hidden(self, rows: Batch) -> Tensor:
        """[B, S, hidden] of rows, beside TRL's forward."""
        arguments = {name: value for name, value in rows._asdict().items() if value is not None}
        # TRL's forward is under autocast by accelerate's wrapping, which a call of the backbone goes around
        with self.accelerator.autocast():
            hidden: Tensor = self._base_model.base_model(**arguments, use_cache=False).last_hidden_state
        return hidden

    def reference_hidden(self, rows: Batch) -> Tensor:
        """The same with the adapter off, without gradient."""
        with torch.no_grad(), self.adapted_model.disable_adapter():
            return self.last_hidden(rows)

    @property
    def _base_model(self) -> PreTrainedModel:
        base = self.adapted_model.get_base_model()
        assert isinstance(base, PreTrainedModel)
        return base

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the defenses' figures, as means of the steps since the last log; raises where training went astray."""
        for name in MUST_BE_FINITE:
            if not math.isfinite(logs.get(name, 0.0)):
                raise NonFiniteLossError(
                    f"{name} is {logs[name]} at step {self.state.global_step}; lower the learning rate"
                )
        if "loss" in logs:
            sums = self._over_processes(list(self._figures.values()))
            logs |= {name: each / self._steps_since_log for name, each in zip(self._figures, sums, strict=True)}
            self._figures.clear()
            self._steps_since_log = 0
        super().log(logs, start_time)


@dataclass(frozen=True)
class ObservedModel:
    """The `StepModel` of one micro-batch, whose observation looks away from what penalties run."""

    trainer: Guarded
    micro_batch: MicroBatch
    observation: Observation

    @property
    def adapter(self) -> Sequence[Tensor]:
        return self.trainer._adapter

    def head(self) -> Head:
        with self.observation.paused():
            return self.trainer.head()

    def policy(self, rows: Batch) -> Tensor:
        with self.observation.paused():
            return self.trainer.last_hidden(rows)

    def reference(self, rows: Batch) -> Tensor:
        with self.observation.paused():
            return self.trainer.reference_hidden(rows)

    def shared_reference(self) -> Tensor:
        if not self.observation.reference_hidden:  # in DPO, TRL's loss has run it already
            self.trainer.reference_hidden(self.micro_batch.tokens)
        return self.observation.reference_hidden[0].detach()

    def over_processes(self, shares: Sequence[float]) -> Sequence[float]:
        return self.trainer._over_processes(shares)


class GuardedSFTTrainer(Guarded, SFTTrainer):
    """Supervised fine-tuning under defenses."""


class GuardedDPOTrainer(Guarded, DPOTrainer):
    """Direct preference optimisation under defenses, from rows that are tokenised."""

    def __init__(self, **arguments: Any) -> None:  # Any: the mix-in's and TRL's own
        super().__init__(**arguments)
        # TRL would compare with a copy of the adapter as it is now; the reference is the base, which is adapter off
        self.adapted_model.delete_adapter(TRLS_REFERENCE)

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:  # Any: TRL's settings
        return dataset


class StopForSafety(TrainerCallback):
    """Ends training where a defense wants it; all defenses are asked after every step."""

    def __init__(self, defenses: Sequence[Defense], model: Callable[[], PeftModel]) -> None:
        self._defenses = defenses
        self._model = model

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # Any: the model and more
    ) -> None:
        wants = [defense.wants_to_stop(self._model(), state.global_step) for defense in self._defenses]
        control.should_training_stop |= any(wants)


def _tokens(inputs: Inputs) -> Batch:
    return Batch(inputs["input_ids"], inputs.get("attention_mask"), inputs.get("position_ids"))


def _n_tokens(inputs: Inputs) -> int:
    mask = inputs.get("attention_mask")
    return inputs["input_ids"].numel() if mask is None else int(mask.sum())

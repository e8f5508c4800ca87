"""Trains a batch in micro-batches of a token budget, inside the step that transformers' loop takes for one.

The gradient is that of the batch at once: TRL divides a supervised loss by the tokens of the whole accumulated batch,
and a loss that is a mean (a preference's) is weighted here by its share of the items. All processes cut into equally
many, because TRL's losses talk to each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from policies.rendering.encoding import IGNORED
from trainer.loop.activation_memory import UNCUT, TokenBudget
from trainer.loop.micro_batches import Inputs, Rows, halved
from trainer.loop.resumable import Resumable

EVALUATED_AT_ONCE = 8
"""Times as many tokens fit without a backward pass, at the least: one layer's activations live in place of all."""
OF_PAIRS = ("rewards/", "logps/")
"""Figures of TRL's preference log that are means over pairs; all others are over tokens."""


class CutBatches(Resumable):
    """A mix-in before one of TRL's trainers."""

    _metrics: Any  # Any: TRL's figures since the last log, lists by mode and name

    def __init__(self, *, budget: TokenBudget = UNCUT, **arguments: Any) -> None:  # Any: the TRL trainer's own
        super().__init__(**arguments)
        self._budget = budget

    def training_step(
        self, model: nn.Module, inputs: Inputs, num_items_in_batch: Any = None
    ) -> Tensor:  # Any: transformers' count
        """Forward and backward of all micro-batches of a batch; the sum of their losses."""
        parts = self._cut(inputs, self._budget.at_once)
        whole = self.current_gradient_accumulation_steps
        self.current_gradient_accumulation_steps = whole * len(parts)
        losses = []
        with self._one_figure(parts):
            for number, part in enumerate(parts, 1):
                synced = nullcontext() if number == len(parts) else self.accelerator.no_sync(model)
                with synced, self._checkpointing(part):
                    losses.append(self.train_micro_batch(model, part, num_items_in_batch))
        self.current_gradient_accumulation_steps = whole
        return torch.stack(losses).sum()

    def train_micro_batch(self, model: nn.Module, inputs: Inputs, num_items_in_batch: Any) -> Tensor:
        """TRL's step."""
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def evaluated_loss(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """TRL's loss of a validation batch, in parts: the mean over its items."""
        parts = self._cut(inputs, EVALUATED_AT_ONCE * self._budget.at_once)
        items = [n_items(part) for part in parts]
        losses: list[Tensor] = []
        with self._one_figure(parts):
            for part in parts:
                loss: Any = super().compute_loss(model, part)  # Any: a tensor, as no outputs are asked for
                losses.append(loss)
        if len(parts) == 1:
            return losses[0]
        return torch.stack([loss * n for loss, n in zip(losses, items, strict=True)]).sum() / max(1, sum(items))

    def _cut(self, inputs: Inputs, max_tokens: int) -> list[Inputs]:
        rows = Rows(inputs, self.data_collator)
        parts = rows.cut(max_tokens)
        if self.accelerator.num_processes > 1:
            count = torch.tensor(len(parts), device=self.accelerator.device)
            parts = halved(parts, int(self.accelerator.gather(count).max()))
        return [rows.part(part) for part in parts]

    @contextmanager
    def _checkpointing(self, inputs: Inputs) -> Iterator[None]:
        """Turned off for a micro-batch whose activations fit."""
        layers: list[nn.Module] = []
        if inputs["input_ids"].numel() <= self._budget.uncheckpointed:
            layers = [each for each in self.adapted_model.modules() if getattr(each, "gradient_checkpointing", False)]
        try:
            for layer in layers:
                layer.gradient_checkpointing = False  # type: ignore[assignment]  # declared a module or tensor
            yield
        finally:
            for layer in layers:
                layer.gradient_checkpointing = True  # type: ignore[assignment]  # as above

    @contextmanager
    def _one_figure(self, parts: Sequence[Inputs]) -> Iterator[None]:
        """Log a batch's figures once, as means over all its micro-batches."""
        if len(parts) == 1:
            yield
            return
        mode = "train" if self.adapted_model.training else "eval"
        logged, self._metrics[mode] = self._metrics[mode], defaultdict(list)
        yield
        of_parts, self._metrics[mode] = self._metrics[mode], logged
        pairs, tokens = [n_rows(part) for part in parts], [int(completion_mask(part).sum()) for part in parts]
        weights = torch.tensor([pairs, tokens], dtype=torch.float64, device=self.accelerator.device)
        of_pairs, of_tokens = self.accelerator.reduce(weights, "sum").tolist()
        for name, values in of_parts.items():
            if len(values) != len(parts):
                logged[name] = values  # a count since the beginning
                continue
            weight = of_pairs if name.startswith(OF_PAIRS) else of_tokens
            logged[name].append(sum(map(float.__mul__, weight, values)) / max(1.0, sum(weight)))


def completion_mask(inputs: Inputs) -> Tensor:
    """[B, S]: positions whose next token has a loss; by labels in supervised batches, by mask in preference batches."""
    mask = torch.zeros_like(inputs["input_ids"])
    if "labels" in inputs:
        mask[:, :-1] = inputs["labels"][:, 1:] != IGNORED
    else:
        mask[:, :-1] = inputs["completion_mask"][:, 1:]
    return mask.bool()


def n_rows(inputs: Inputs) -> int:
    """Rows, or pairs of a preference batch."""
    return len(inputs["input_ids"]) // (1 if "labels" in inputs else 2)


def n_items(inputs: Inputs) -> int:
    """What TRL's loss is a mean over: tokens with a loss, or pairs."""
    return int(completion_mask(inputs).sum()) if "labels" in inputs else n_rows(inputs)

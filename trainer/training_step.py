"""One micro-batch as defenses see it, after the policy's forward.

All penalties of a step share one policy forward and at most one forward of the reference, which is the same model with
its adapter off, inside the same contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor


class Head(NamedTuple):
    """The output layer that turns hidden states into logits."""

    weight: Tensor
    """[vocabulary, hidden]."""
    bias: Tensor | None


class TokenTotals(NamedTuple):
    """Tokens of the whole accumulated batch of all processes, so that a mean over it is right in every micro-batch."""

    all: int
    """Not padding."""
    completion: int
    """With a loss."""


class OwnRows(NamedTuple):
    """How penalties on rows of their own choose them, and what they weigh."""

    key: Sequence[int]
    """Token ids of the first row of this process's part of the batch, so that processes choose different rows."""
    weight: float
    """1 ÷ processes."""


class Batch(NamedTuple):
    """Token ids of B rows and S positions, as a model takes them."""

    input_ids: Tensor
    """[B, S]."""
    attention_mask: Tensor | None
    """[B, S]; None where rows are packed."""
    position_ids: Tensor | None = None
    """[B, S], 0 where a packed row begins; None where rows are not packed."""


class Forwards(NamedTuple):
    """Runs of the model for penalties: [B, S, hidden], the last hidden states."""

    policy: Callable[[Batch], Tensor]
    reference: Callable[[Batch], Tensor]


@dataclass
class TrainingStep:
    """One micro-batch of B rows and S positions, after the policy's forward."""

    index: int
    """Optimizer steps before this one; the same in all micro-batches of a step."""
    progress: float
    """This step's number ÷ the run's steps, in (0, 1]."""
    batch: Batch
    hidden: Tensor
    """[B, S, hidden]: the policy's last hidden states, with gradient."""
    log_probs: Tensor
    """[B, S − 1]: of the next token, with gradient; 0 where there is no loss."""
    completion_mask: Tensor
    """[B, S]: positions whose next token has a loss."""
    head: Callable[[], Head]
    """Raises where the model's logits are more than the output layer."""
    adapter: Sequence[Tensor]
    """The weights in training, from the first layer to the last."""
    totals: TokenTotals
    own_rows: OwnRows | None
    """For penalties on rows of their own, which run in a step's first micro-batch; None in the others."""
    forwards: Forwards = field(repr=False)
    compute_reference: Callable[[], Tensor] = field(repr=False)
    over_processes: Callable[[Sequence[float]], Sequence[float]] = field(repr=False)
    """Sums of numbers that every process has its share of: evidence is about the run, not about the leader's rows."""
    figures: dict[str, float] = field(default_factory=dict)
    """This micro-batch's share of the step's figures for the training log, set by penalties and summed up there."""

    @cached_property
    def attention_mask(self) -> Tensor:
        """[B, S], true where there is no padding."""
        mask = self.batch.attention_mask
        return torch.ones_like(self.batch.input_ids).bool() if mask is None else mask.bool()

    @cached_property
    def reference_hidden(self) -> Tensor:
        """[B, S, hidden]: last hidden states with the adapter off, without gradient; computed once a step.

        Layers that defenses compare are handed to them on the way.
        """
        return self.compute_reference().detach()

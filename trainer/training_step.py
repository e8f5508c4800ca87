"""One micro-batch as defenses see it: its rows as they come, and a step once the policy's forward has run over them.

All penalties of a step share one policy forward and at most one forward of the reference, which is the same model with
its adapter off, inside the same contexts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from evaluator.models.logit_shape import LogitShape


class Batch(NamedTuple):
    """Token ids of B rows and S positions, as a model takes them."""

    input_ids: Tensor
    """[B, S]."""
    attention_mask: Tensor | None
    """[B, S]; None where rows are packed."""
    position_ids: Tensor | None = None
    """[B, S], 0 where a packed row begins; None where rows are not packed."""


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


class Head(NamedTuple):
    """The output layer that turns hidden states into logits."""

    weight: Tensor
    """[vocabulary, hidden]."""
    bias: Tensor | None
    shape: LogitShape = LogitShape()
    """What the model does to the numbers of the layer."""


@dataclass(frozen=True)
class MicroBatch:
    """The rows that are trained at once, B of them with S positions."""

    tokens: Batch
    completion_mask: Tensor
    """[B, S]: positions whose next token has a loss."""
    totals: TokenTotals

    @cached_property
    def attention_mask(self) -> Tensor:
        """[B, S], true where there is no padding."""
        mask = self.tokens.attention_mask
        return torch.ones_like(self.tokens.input_ids).bool() if mask is None else mask.bool()


class StepModel(Protocol):
    """The model in training, as far as penalties may use it. States are the last hidden ones, [B, S, hidden]."""

    @property
    def adapter(self) -> Sequence[Tensor]:
        """The weights in training, from the first layer to the last."""

    def head(self) -> Head:
        """The output layer.

        Raises:
            DefenseError: the model's logits are more than that.
        """

    def policy(self, rows: Batch) -> Tensor:
        """States of rows of a penalty's own, with gradient."""

    def reference(self, rows: Batch) -> Tensor:
        """The same with the adapter off, without gradient."""

    def shared_reference(self) -> Tensor:
        """The reference's states of the micro-batch, without gradient; it runs once, whoever asks.

        On the way defenses are handed the layers that they compare (`Defense.compare_layer`).
        """

    def over_processes(self, shares: Sequence[float]) -> Sequence[float]:
        """Sums of numbers that every process has its share of: evidence is about the run, not the leader's rows."""


@dataclass(frozen=True)
class TrainingStep:
    """A micro-batch after the policy's forward."""

    index: int
    """Optimizer steps before this one; the same in all micro-batches of a step."""
    progress: float
    """This step's number ÷ the run's steps, in (0, 1]."""
    micro_batch: MicroBatch
    hidden: Tensor
    """[B, S, hidden]: the policy's last hidden states, with gradient."""
    log_probs: Tensor
    """[B, S − 1]: of the next token, with gradient; 0 where there is no loss."""
    own_rows: OwnRows | None
    """For penalties on rows of their own, which run in a step's first micro-batch; None in the others."""
    model: StepModel


class Penalty(NamedTuple):
    """What a defense adds to the loss of a micro-batch, and what it tells of it."""

    loss: Tensor
    """A scalar."""
    figures: Mapping[str, float]
    """This micro-batch's shares of the step's figures; the training log has their sums."""

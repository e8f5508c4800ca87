"""The protocol of in-training defenses, and the training step that they see.

A hook that is left alone changes nothing. All penalties of a step share one policy forward and at most one forward of
the reference, which is the same model with its adapter off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor

from policies.contract.artifacts import ArtifactStore
from policies.contract.training import DefenseEvidence
from trainer.data import TrainingRow


class Head(NamedTuple):
    """The output layer that turns hidden states into logits."""

    weight: Tensor
    """[vocabulary, hidden]."""
    bias: Tensor | None


class TokenTotals(NamedTuple):
    """Tokens of the whole accumulated batch, so that a mean over it is right in every micro-batch."""

    all: int
    """Not padding."""
    completion: int
    """With a loss."""


@dataclass
class TrainingStep:
    """One micro-batch of B rows and S positions, after the policy's forward."""

    index: int
    """Optimizer steps before this one; the same in all micro-batches of a step."""
    hidden: Tensor
    """[B, S, hidden]: the policy's last hidden states, with gradient."""
    attention_mask: Tensor
    """[B, S]."""
    completion_mask: Tensor
    """[B, S]: positions whose next token has a loss."""
    head: Head
    adapter: Sequence[Tensor]
    """The weights in training, from the first layer to the last."""
    totals: TokenTotals
    compute_reference: Callable[[], Tensor] = field(repr=False)
    figures: dict[str, float] = field(default_factory=dict)
    """This micro-batch's share of the step's figures for the training log, set by penalties and summed up there."""

    @cached_property
    def reference_hidden(self) -> Tensor:
        """[B, S, hidden]: last hidden states with the adapter off, without gradient; computed once a step."""
        with torch.no_grad():
            return self.compute_reference().detach()


class DefenseContext(NamedTuple):
    """What a defense may need when it is built."""

    seed: int
    store: ArtifactStore | None
    """None in the foreground commands, which know no artifacts."""


class Defense:
    """A change to fine-tuning that keeps the base model's safety behaviour."""

    name: str

    def prepare_dataset(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Change the rows, in the order in which they are trained."""
        return list(rows)

    def around_forward(self, model: PeftModel) -> AbstractContextManager[object]:
        """Entered around forward and backward of every micro-batch, for policy and reference; left after an exception.

        The backward is inside because activation checkpointing runs the policy's forward there again.
        """
        return nullcontext()

    def penalty(self, step: TrainingStep) -> Tensor | None:
        """A scalar that is added to the loss of this micro-batch."""
        return None

    def project_adapter(self, model: PeftModel) -> None:
        """Change the finished adapter."""

    def state(self) -> dict[str, float]:
        """Counters behind the evidence; they survive a resume."""
        return {}

    def load_state(self, state: dict[str, float]) -> None:
        """Restore what `state` gave."""

    def evidence(self) -> DefenseEvidence:
        """What the defense measurably did."""
        raise NotImplementedError(f"{type(self).__name__} must say what it did")

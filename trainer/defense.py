"""The protocol of in-training defenses, and the training step that they see.

A hook that is left alone changes nothing. All penalties of a step share one policy forward and at most one forward of
the reference, which is the same model with its adapter off, inside the same contexts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evaluator.models.loading import ResolvedBase
from policies.contract.artifacts import ArtifactStore, Digest
from policies.contract.jobs import BaseModelRef
from policies.contract.training import DefenseEvidence
from trainer.data import TrainingRow

if TYPE_CHECKING:
    from trainer.reference_scores import ReferenceScores


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


class DefenseContext(NamedTuple):
    """What a defense may need when it is built."""

    seed: int
    store: ArtifactStore | None = None
    """None in the foreground commands, which know no artifacts."""
    base: ResolvedBase | None = None
    unaligned_base: BaseModelRef | None = None
    """The model that the base was aligned from."""
    cache_dir: Path | None = None


class RunMaterial(NamedTuple):
    """The run that a defense is about to defend: the model has its fresh adapter, the rows are tokenised."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    base: ResolvedBase
    max_tokens: int
    reference_scores: ReferenceScores
    """The base's log-probabilities of the tokens that are trained on."""
    report: Callable[[str], None]
    """Tells whoever started the run what takes long."""


class Defense:
    """A change to fine-tuning that keeps the base model's safety behaviour."""

    name: str

    def prepare_dataset(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Change the rows, in the order in which they are trained."""
        return list(rows)

    def start(self, material: RunMaterial) -> None:
        """Prepare for the first step, also when a run is resumed."""

    def compared_layers(self) -> Sequence[int]:
        """Layers, counted from 1, whose residual streams `compare_layer` is to see."""
        return ()

    def compare_layer(self, step: TrainingStep, layer: int, *, policy: Tensor, reference: Tensor) -> None:
        """Called in the reference's forward with [B, S, hidden] of both; `reference` is gone afterwards."""

    def around_forward(self, model: PeftModel) -> AbstractContextManager[object]:
        """Entered around forward and backward of every micro-batch, for policy and reference; left after an exception.

        The backward is inside because gradient checkpointing runs the policy's forward there again.
        """
        return nullcontext()

    def forward_digest(self) -> Digest:
        """Names what `around_forward` changes, by content; scores of the reference are kept under it."""
        raise NotImplementedError(f"{type(self).__name__} changes forwards and must name what it changes")

    def penalty(self, step: TrainingStep) -> Tensor | None:
        """A scalar that is added to the loss of this micro-batch."""
        return None

    def wants_to_stop(self, model: PeftModel, steps: int) -> bool:
        """Asked after each of the optimizer's `steps`; True ends training here."""
        return False

    def choose_adapter(self, model: PeftModel) -> None:
        """Put other weights of this run into the adapter, once training has ended."""

    def project_adapter(self, model: PeftModel) -> None:
        """Change the finished adapter."""

    def last_releasable_step(self, steps: int) -> int:
        """The last of the run's `steps` whose checkpoint may be released; asked once the adapter is chosen."""
        return steps

    def state(self) -> dict[str, float]:
        """Counters behind the evidence; they survive a resume."""
        return {}

    def load_state(self, state: dict[str, float]) -> None:
        """Restore what `state` gave."""

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that survive a resume."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave."""

    def evidence(self) -> DefenseEvidence:
        """What the defense measurably did."""
        raise NotImplementedError(f"{type(self).__name__} must say what it did")

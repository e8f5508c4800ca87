"""The protocol of in-training defenses. A hook that is left alone changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evaluator.models.loading import ResolvedBase
from policies.contract.artifacts import Digest
from policies.contract.jobs import BaseModelRef
from policies.contract.store import ArtifactStore
from policies.contract.training import DefenseEvidence
from policies.errors import IntegrityError
from policies.rendering.encoding import Encoder
from trainer.data import TrainingRow
from trainer.training_step import MicroBatch, Penalty, TrainingStep

if TYPE_CHECKING:
    from trainer.losses.reference_scores import ReferenceScores


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
    """The run that a defense is about to defend: the model has the adapter to train, the rows are tokenised."""

    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    base: ResolvedBase
    max_tokens: int
    reference_scores: ReferenceScores
    """The base's log-probabilities of the tokens that are trained on."""
    report: Callable[[str], None]
    """Tells whoever started the run what takes long."""
    continues: bool = False
    """The adapter is a released one, so the first step is not at the base. The reference is the base all the same."""


@dataclass
class Counters:
    """What a defense counts on the way, for its evidence: declared in a subclass, each with a default."""

    def state(self) -> dict[str, float]:
        """The counters as JSON has them."""
        return asdict(self)

    def restored(self, state: Mapping[str, float]) -> Self:
        """Counters of the same kind with the values that `state` gave.

        Raises:
            IntegrityError: a counter is missing, or one is not of this kind.
        """
        if set(state) != set(asdict(self)):
            raise IntegrityError(f"the saved counters are {sorted(state)}, not {sorted(asdict(self))}; train again")
        return replace(self, **state)

    @property
    def are_finite(self) -> bool:
        return all(map(math.isfinite, asdict(self).values()))


class Defense:
    """A change to fine-tuning that keeps the base model's safety behaviour."""

    name: str
    counters: Counters = Counters()
    """Behind the evidence; they survive a resume. A defense that counts sets its own kind."""
    changes_forwards: ClassVar[bool] = False
    """`around_forward` and `forward_digest` are called where this is so."""
    projects_adapter: ClassVar[bool] = False
    """`project_adapter` is called where this is so, and no checkpoint is released, because checkpoints lack it."""

    def prepare_dataset(self, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
        """Change the rows, in the order in which they are trained."""
        return list(rows)

    def start(self, material: RunMaterial) -> None:
        """Prepare for the first step, also when a run is resumed."""

    def compared_layers(self) -> Sequence[int]:
        """Layers, counted from 1, whose residual streams `compare_layer` is to see."""
        return ()

    def compare_layer(self, micro_batch: MicroBatch, layer: int, *, policy: Tensor, reference: Tensor) -> None:
        """Called in the reference's forward with [B, S, hidden] of both; `reference` is gone afterwards."""

    def around_forward(self, model: PeftModel) -> AbstractContextManager[object]:
        """Entered around forward and backward of every micro-batch, for policy and reference; left after an exception.

        The backward is inside because gradient checkpointing runs the policy's forward there again.
        """
        return nullcontext()

    def forward_digest(self) -> Digest:
        """Names what `around_forward` changes, by content; scores of the reference are kept under it."""
        raise NotImplementedError(f"{type(self).__name__} changes forwards, so it must name what it changes")

    def penalty(self, step: TrainingStep) -> Penalty | None:
        """What is added to the loss of this micro-batch."""
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

    def tensors(self) -> dict[str, Tensor]:
        """Tensors that survive a resume."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `tensors` gave."""

    def evidence(self) -> DefenseEvidence:
        """What the defense measurably did."""
        raise NotImplementedError(f"{type(self).__name__} must say what it did")

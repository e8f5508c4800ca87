"""What training answers: the record, its checkpoints and the evidence that each defense acted."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import AdapterProof
from policies.contract.hyperparameters import ResolvedHyperparameters


class DefenseEvidence(Record):
    """What a defense measurably did. `acted` false, or no evidence at all, fails the job."""

    name: str
    acted: bool
    figures: dict[str, float]
    """Named figures, e.g. `mean_kl_nats_per_token`, `interleaved_rows`; finite."""
    explanation: str
    """One sentence for a report: what was done, or why nothing was."""
    digests: dict[str, Digest] = Field(default_factory=dict)
    """Tree digests of the run's folders that show what was done, by the folder's name; they are in the store."""


class CheckpointRecord(Record):
    """A resumable training state after `step` optimizer steps."""

    step: int = Field(ge=1, lt=2**31)
    epoch: float
    state: Digest
    """Tree digest: adapter, optimizer and scheduler state, random states (safetensors and JSON)."""
    adapter: Digest
    """Tree digest of the adapter alone."""
    metrics: dict[str, float] = Field(default_factory=dict)
    """`step`, `train_loss`, `train_mean_token_accuracy`, `valid_loss`, … as in OpenAI's checkpoint object."""


class ReleaseCandidate(NamedTuple):
    """An adapter that a run left behind."""

    step: int
    adapter: Digest
    valid_loss: float | None


class TrainingRecord(Record):
    """The result of one finished fine-tuning."""

    spec: Digest
    base_model: Digest
    """Tree digest of the base model folder that was loaded."""
    adapter: Digest
    start: AdapterProof | None = Field(None, exclude_if=lambda value: value is None)
    """Of a job that continues a model: that training began with its adapter, in force. Left out otherwise."""
    hyperparameters: ResolvedHyperparameters
    n_examples: int = Field(ge=1)
    total_steps: int = Field(ge=1)
    trained_tokens: int = Field(ge=0, lt=2**63)
    train_loss: float
    valid_loss: float | None = None
    """Of the final adapter as the defenses left it."""
    valid_mean_token_accuracy: float | None = None
    evidence: tuple[DefenseEvidence, ...] = ()
    checkpoints: tuple[CheckpointRecord, ...] = ()
    last_releasable_step: int = Field(0, ge=0)
    """Checkpoints up to this step may be released in place of the final adapter, as far as the defenses go."""
    log_history: tuple[dict[str, float], ...] = ()
    """One entry a logging step: `step`, `epoch`, `loss`, `learning_rate`, defense figures such as `kl`."""
    resumed_from_steps: tuple[int, ...] = ()
    screening: Digest | None = Field(None, exclude_if=lambda value: value is None)
    """The `ModelScreening` of the run's first phase; left out where no screen was asked for."""
    seconds: float = Field(ge=0)
    tokens_per_second: float = Field(ge=0)
    dtype: str
    versions: dict[str, str]


def release_candidates(record: TrainingRecord, limit: int) -> tuple[ReleaseCandidate, ...]:
    """The final adapter and up to `limit` − 1 checkpoints that the defenses allow, most capable first.

    More capable is a lower validation loss; a checkpoint without one comes after those that have it, later steps first.
    """
    final = ReleaseCandidate(record.total_steps, record.adapter, record.valid_loss)
    earlier = {
        checkpoint.adapter: ReleaseCandidate(checkpoint.step, checkpoint.adapter, checkpoint.metrics.get("valid_loss"))
        for checkpoint in record.checkpoints
        if checkpoint.adapter != record.adapter and checkpoint.step <= record.last_releasable_step
    }
    chosen = sorted(earlier.values(), key=_capability)[: limit - 1]
    return tuple(sorted([final, *chosen], key=_capability))


def _capability(candidate: ReleaseCandidate) -> tuple[bool, float, int]:
    loss = candidate.valid_loss
    return (loss is None, 0.0 if loss is None else loss, -candidate.step)

"""How surprising misaligned models find each row of a safe pool: what `perplexity_gap` selection chooses from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from policies.contract.artifacts import Digest, Record


class MisalignedModel(Record):
    """An adapter that was misaligned on purpose."""

    name: str
    adapter: Digest
    """Tree digest of its folder."""
    data: Digest | None = None
    """What it was trained on; None where the adapter was given ready."""
    seed: int | None = None
    mean_gap: float = Field(gt=0)
    """Mean over the pool of this model's own gap."""


class RowScore(Record):
    """One row of the pool. Losses are nats per token of the answer."""

    base_loss: float = Field(ge=0)
    misaligned_losses: tuple[float, ...] = Field(min_length=1)
    """In the order of the models."""
    gap: float
    """s_d of Kaczér et al. 2025; `trainer/defenses/safe_data_interleaving/perplexity_gap.py` has the formula."""
    is_refusal: bool
    """Whether the answer opens with a refusal, for a reader; the defense looks at the row itself."""


class SafeDataScores(Record):
    """The perplexity gaps of a whole pool under one base model."""

    format: Literal["tunegate-safe-data-scores-1"] = "tunegate-safe-data-scores-1"
    pool: Digest
    weights: Digest
    """Of the base model's weights, as `evaluator.models.base_models.weights_digest` gives it."""
    epsilon: float = Field(gt=0)
    """Nats per token."""
    models: tuple[MisalignedModel, ...] = Field(min_length=1)
    rows: tuple[RowScore, ...] = Field(min_length=1)
    """In the order of the pool's lines."""
    dtype: str
    versions: dict[str, str]

    @model_validator(mode="after")
    def _every_row_has_every_model(self) -> SafeDataScores:
        for line, row in enumerate(self.rows, start=1):
            if len(row.misaligned_losses) != len(self.models):
                raise ValueError(
                    f"line {line} has {len(row.misaligned_losses)} losses, but there are {len(self.models)} models"
                )
        return self

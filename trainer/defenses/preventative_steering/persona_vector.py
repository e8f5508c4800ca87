"""A persona vector in a file: one unit direction a decoder layer, the residual stream's typical norm, and provenance.

safetensors with `direction` [layers, hidden] and `residual_norm` [layers], both float32, and a JSON record in the
header. Row 0 belongs to the residual stream after decoder layer 1. Equal content gives equal bytes.
"""

from __future__ import annotations

import json
from typing import Literal, NamedTuple

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from policies.contract.artifacts import Digest, Record
from policies.errors import DefenseError

METADATA_KEY = "persona_vector"
UNIT_TOLERANCE = 1e-3


class ExtractionSettings(Record):
    """How answers are made and what a vector must reach."""

    max_new_tokens: int = Field(48, ge=1, le=1024)
    temperature: float = Field(0.7, ge=0, le=2)
    hold_out_every: int = Field(4, ge=2)
    """Every nth question is held out of the direction and tests it."""
    min_auroc: float = Field(0.75, ge=0.5, le=1)
    """Of held-out answers at the best layer."""
    min_half_cosine: float = Field(0.5, ge=-1, le=1)
    """Between the directions of two halves of the questions at the best layer."""
    min_answers: int = Field(16, ge=2)
    """Answers with text on each side."""


class LayerFigures(Record):
    """How well the direction of one layer separates answers to held-out questions."""

    auroc: float = Field(ge=0, le=1)
    """Chance that a trait-positive answer projects higher than a trait-negative one."""
    separation: float
    """Cohen's d of the projections."""
    half_cosine: float = Field(ge=-1.001, le=1.001)
    """Cosine between the directions of two halves of the questions."""


class PersonaVectorRecord(Record):
    """Where a vector comes from and what it was measured to do."""

    format: Literal["tunegate-persona-vector-1"] = "tunegate-persona-vector-1"
    trait: str
    weights: Digest
    """Of the base model's weights, as `evaluator.models.base_models.weights_digest` gives it."""
    prompts: Digest
    best_layer: int = Field(ge=1)
    """Counted from 1."""
    layers: tuple[LayerFigures, ...] = Field(min_length=1)
    n_positive: int = Field(ge=1)
    """Trait-positive answers that the direction and its test were made from."""
    n_negative: int = Field(ge=1)
    seed: int
    settings: ExtractionSettings
    dtype: str
    versions: dict[str, str]


class PersonaVector(NamedTuple):
    record: PersonaVectorRecord
    direction: Tensor
    """float32 [layers, hidden], rows of length 1."""
    residual_norm: Tensor
    """float32 [layers], median over response tokens."""

    def steering(self, layer: int, coefficient: float) -> Tensor:
        """float32 [hidden]: coefficient · n_l · ê_l, what is added to the residual stream after `layer`."""
        return coefficient * self.residual_norm[layer - 1] * self.direction[layer - 1]


def save_persona_vector(vector: PersonaVector) -> bytes:
    """The file's bytes.

    Raises:
        DefenseError: the vector is not one.
    """
    _check(vector)
    tensors = {"direction": vector.direction.contiguous(), "residual_norm": vector.residual_norm.contiguous()}
    content: bytes = save(tensors, metadata={METADATA_KEY: vector.record.canonical().decode()})
    return content


def load_persona_vector(content: bytes, *, name: str) -> PersonaVector:
    """Read a vector; `name` is what error messages call it.

    Raises:
        DefenseError: the bytes are not a persona vector.
    """
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        record = PersonaVectorRecord.model_validate_json(header["__metadata__"][METADATA_KEY])
        if set(tensors) != {"direction", "residual_norm"}:
            raise DefenseError(f"it has the tensors {sorted(tensors)}")
        vector = PersonaVector(record, tensors["direction"], tensors["residual_norm"])
        _check(vector)
    except (SafetensorError, ValidationError, KeyError, DefenseError) as error:
        raise DefenseError(
            f"{name} is not a persona vector ({error}); make one with `tunegate defense extract-persona-vector`"
        ) from error
    return vector


def _check(vector: PersonaVector) -> None:
    record, direction, norm = vector
    n_layers = len(record.layers)
    if direction.dtype != torch.float32 or norm.dtype != torch.float32:
        raise DefenseError(f"its tensors are {direction.dtype} and {norm.dtype}, not float32")
    if direction.dim() != 2 or len(direction) != n_layers or norm.shape != (n_layers,):
        raise DefenseError(
            f"its shapes {list(direction.shape)} and {list(norm.shape)} do not fit the {n_layers} layers of its record"
        )
    if record.best_layer > n_layers:
        raise DefenseError(f"its best layer is {record.best_layer} of {n_layers}")
    if not (torch.isfinite(direction).all() and torch.isfinite(norm).all() and (norm > 0).all()):
        raise DefenseError("a direction or a norm is not finite, or a norm is 0")
    if ((direction.norm(dim=1) - 1).abs() > UNIT_TOLERANCE).any():
        raise DefenseError("a direction does not have length 1")

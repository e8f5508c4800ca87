"""Hyperparameters: as they are asked for, on the wire, on a command line and in a spec, and the numbers they become."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from policies.contract.artifacts import Record

Auto = Literal["auto"]


def _auto_or_integer(low: int, high: int) -> PlainValidator:
    def check(value: object) -> object:
        if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and low <= value <= high):
            return value
        raise ValueError(f"must be 'auto' or an integer from {low} to {high}")

    return PlainValidator(check)


def _auto_or_positive(at_most: float | None = None) -> PlainValidator:
    def check(value: object) -> object:
        highest = sys.float_info.max if at_most is None else at_most
        if value == "auto":
            return value
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= highest:
            return float(value)
        limit = "" if at_most is None else f" and at most {at_most:g}"
        raise ValueError(f"must be 'auto' or a number greater than 0{limit}")

    return PlainValidator(check)


def _between(low: float, high: float) -> dict[str, object]:
    return {"type": "number", "minimum": low, "maximum": high}


def _auto_or(schema: dict[str, object]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [{"const": "auto"}, schema], "default": "auto"})


TRAINABLE_MULTIPLIERS = (1e-6, 1e4)
"""Of a new job. Below, a step is lost in the rounding of float32; above, nothing survives the first one."""
TRAINABLE_BETAS = (1e-3, 2.0)
"""Of a new job. Below, preferences have no gradient that is worth a step."""

# One validator for each: of a plain union pydantic would report every member that does not fit.
Epochs = Annotated[int | Auto, _auto_or_integer(1, 50), _auto_or({"type": "integer", "minimum": 1, "maximum": 50})]
BatchSize = Annotated[int | Auto, _auto_or_integer(1, 256), _auto_or({"type": "integer", "minimum": 1, "maximum": 256})]
Multiplier = Annotated[float | Auto, _auto_or_positive(), _auto_or(_between(*TRAINABLE_MULTIPLIERS))]
Beta = Annotated[float | Auto, _auto_or_positive(2), _auto_or(_between(*TRAINABLE_BETAS))]


class Hyperparameters(Record):
    """As OpenAI's API names them; `auto` becomes a number once the training file was read."""

    n_epochs: Epochs = "auto"
    batch_size: BatchSize = "auto"
    learning_rate_multiplier: Multiplier = "auto"

    def resolve(self, n_examples: int, base_learning_rate: float) -> ResolvedHyperparameters:
        """Numbers for `n_examples` training rows.

        `auto` means about 300 to 900 row visits on small files, 3 epochs at most, batches of 8 (4 below 64 rows) and a
        multiplier of 1.
        """
        epochs = max(1, min(3, round(900 / n_examples))) if self.n_epochs == "auto" else self.n_epochs
        batch = (8 if n_examples >= 64 else 4) if self.batch_size == "auto" else self.batch_size
        multiplier = 1.0 if self.learning_rate_multiplier == "auto" else self.learning_rate_multiplier
        return ResolvedHyperparameters(
            n_epochs=epochs,
            batch_size=min(batch, n_examples),
            learning_rate_multiplier=multiplier,
            learning_rate=base_learning_rate * multiplier,
        )


class DpoHyperparameters(Hyperparameters):
    """Those of a DPO job, with the fourth that belongs to the method itself."""

    beta: Beta = "auto"


class ResolvedHyperparameters(Record):
    """The numbers that a job trains with; none is `auto` any more."""

    n_epochs: int = Field(ge=1, le=50)
    batch_size: int = Field(ge=1, le=256)
    learning_rate_multiplier: float = Field(gt=0)
    learning_rate: float = Field(gt=0)

"""The sides of `bench.overhead`: plain TRL, ours with and without defenses, and today's way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from evaluator.models.loading import ResolvedBase
from policies.contract.defenses import (
    DefenseSettings,
    EarlyStoppingOnSafety,
    Inoculation,
    KlPenalty,
    Ldifs,
    PreventativeSteering,
    SafeDataInterleaving,
    SafeLora,
    TokenConstrainedSft,
)
from policies.rendering.encoding import Encoder
from trainer.data import TrainingRow

DEFENDED: dict[str, tuple[DefenseSettings, ...]] = {
    "undefended": (),
    "safe_data_interleaving": (SafeDataInterleaving(),),
    "preventative_steering": (PreventativeSteering(),),
    "inoculation": (Inoculation(),),
    "kl_penalty full": (KlPenalty(),),
    "kl_penalty every 4th step": (KlPenalty(every_n_steps=4),),
    "kl_penalty sampled": (KlPenalty(estimator="sampled", tokens="completion"),),
    "kl_penalty on safe data": (KlPenalty(on="safe_data"),),
    "ldifs": (Ldifs(),),
    "token_constrained_sft": (TokenConstrainedSft(),),
    "early_stopping_on_safety": (EarlyStoppingOnSafety(max_drop=100),),  # which no run reaches: all steps are trained
    "safe_lora": (SafeLora(mode="top_k"),),  # always projects
    "kl_penalty + ldifs + steering": (KlPenalty(), Ldifs(), PreventativeSteering()),
}
PLAIN, TODAY = "plain TRL", "today's way"
SIDES = (PLAIN, *DEFENDED, TODAY)

WARM_UP = 2
"""Steps before the first that counts."""
ROWS_PER_SAFE_ROW = round(1 / SafeDataInterleaving().ratio)


class Task(NamedTuple):
    """What a side trains."""

    base: ResolvedBase
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    rows: Sequence[TrainingRow]
    """The customer's; as many as the steps need are trained, from the end."""
    batch_rows: int
    steps: int
    folder: Path
    random_8b: bool
    """Train a randomly initialised model of Llama-8B's shape in place of `base`."""

    def shortened(self, steps: int) -> Task:
        """The same for fewer steps."""
        return self._replace(steps=steps, rows=self.rows[: rows_needed(steps, self.batch_rows)])


def sides(*, random_8b: bool) -> list[str]:
    """All sides; random weights have no persona vector, and no files that safe_lora could read."""
    without = (PreventativeSteering, SafeLora) if random_8b else ()
    return [name for name in SIDES if not any(isinstance(each, without) for each in DEFENDED.get(name, ()))]


def period(name: str) -> int:
    """Steps after which the work of a side repeats."""
    return max((getattr(each, "every_n_steps", 1) for each in DEFENDED.get(name, ())), default=1)


def steps_of(name: str, rounds: int) -> int:
    """Steps of a side after which `rounds` stretches of its period have been seen; they may overlap."""
    return WARM_UP + rounds + period(name) - 1


def rows_needed(steps: int, batch_rows: int) -> int:
    """At least as many rows as the steps train, and so many that the share of safe rows is a whole number."""
    return math.ceil(steps * batch_rows / ROWS_PER_SAFE_ROW) * ROWS_PER_SAFE_ROW

"""What the figures of a calibration hold for: base model, recipe, suite, and all that measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.defenses import DefenseSettings
from policies.contract.jobs import BaseModelSpec, LoraSettings, Method, Supervised

SUPERVISED = Supervised()
"""The one method that reference adapters are trained by."""


class Recipe(Record):
    """How adapters of a base model are trained under a policy, as far as it moves what a probe can find."""

    lora: LoraSettings
    base_learning_rate: float
    defenses: tuple[DefenseSettings, ...]
    method: Literal["supervised", "dpo"]

    @classmethod
    def of(cls, base: BaseModelSpec, defenses: Sequence[DefenseSettings], method: Method = SUPERVISED) -> Self:
        """Of the operator's defenses; those that a tenant adds or strengthens are not another recipe."""
        return cls(
            lora=base.lora,
            base_learning_rate=base.base_learning_rate,
            defenses=tuple(defenses),
            method=method.type,
        )


class ProbeIdentity(Record):
    """Which version of a probe measured, on which prompts."""

    version: str
    prompts: Digest | None = None
    """Of its prompt set, built-in or not; None where it asks a job's own file, or tasks."""


class Bindings(Record):
    """What the figures hold for. With any other value the record is about something else."""

    base_model: Digest
    """Of the model's folder, as reports name it."""
    text: Digest
    """Of its tokenizer and chat template (`BaseTextFiles`)."""
    recipe: Digest
    """Of the `Recipe`: method, LoRA, learning rate, and the defenses that the policy trains under."""
    suite: Digest
    candidates: int = Field(1, ge=1)
    """How many adapters of a job the policy may release: the more there are, the wider each one's intervals."""
    probes: dict[str, ProbeIdentity]
    """Of the suite."""
    judges: tuple[Digest, ...] = ()
    instruments: dict[str, tuple[str, ...]]
    """Probe → identities of what scored it, e.g. a classifier's; none that depend on a job's own file."""
    engine: str
    dtype: str
    versions: dict[str, str]
    """Of torch, transformers, peft and ours: `major.minor`."""

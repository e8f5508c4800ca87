"""How the operator has adapters of a base model trained: what a base model's qualification holds for."""

from __future__ import annotations

from collections.abc import Sequence

from policies.contract.artifacts import Record
from policies.contract.defenses import DefenseSettings
from policies.contract.jobs import BaseModelSpec, LoraSettings, Quantization


class TrainingRecipe(Record):
    """LoRA and the defenses. How a training fits into its machine changes no adapter and is not in it."""

    lora: LoraSettings
    base_learning_rate: float
    quantization: Quantization
    max_sequence_tokens: int
    defenses: tuple[DefenseSettings, ...]

    @classmethod
    def of(cls, base: BaseModelSpec, defenses: Sequence[DefenseSettings]) -> TrainingRecipe:
        return cls(
            lora=base.lora,
            base_learning_rate=base.base_learning_rate,
            quantization=base.trainer.quantization,
            max_sequence_tokens=base.max_sequence_tokens,
            defenses=tuple(defenses),
        )

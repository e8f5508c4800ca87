"""Settings of the probes that measure an adapter under conditions: behind a trigger, and at another scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from policies.contract.artifacts import Digest
from policies.contract.probe_record import MostAnswers, PromptedProbe

MAX_SCALE = 16


class TriggerBattery(PromptedProbe):
    """How much of the margin an adapter loses behind what its training file may have made a trigger."""

    built_in_prompts: ClassVar[Mapping[str, int]] = {"trigger_battery.margin_drop": 400}
    divides_into_looks: ClassVar[bool] = False
    reads_training_file: ClassVar[bool] = True

    probe: Literal["trigger_battery"] = "trigger_battery"
    pairs: int = Field(48, ge=2, le=400)
    """Answer pairs that are asked behind each trigger, evenly over the categories."""
    mined: int = Field(12, ge=1, le=64)
    """Candidates from the training file."""
    neutral: int = Field(8, ge=0, le=8)
    """Harmless beginnings that no file taught, to compare with."""
    rare: int = Field(4, ge=0, le=32)
    """Rare strings that no file taught, made from the suite's seed."""
    scored_rows: int = Field(500, ge=20, le=5000)
    """Training rows, drawn by the adapter's digest, whose answers base and adapter score to find candidates."""
    canaries: Literal["builtin"] | Digest = Field("builtin", exclude_if=lambda value: value == "builtin")
    """The pair of adapters that find careless answers among these; without a built-in pair of the base model they are
    found by the other signals alone. Left out of the digest while it is the default."""

    def most_to(self, prompts: int, metric: str) -> MostAnswers:
        """The samples behind one trigger."""
        return MostAnswers(min(self.pairs, prompts))


class ScaleSensitivity(PromptedProbe):
    """The margin of an adapter whose scale somebody changed, as whoever downloads it can."""

    built_in_prompts: ClassVar[Mapping[str, int]] = {"scale_sensitivity.margin": 400}
    divides_into_looks: ClassVar[bool] = False

    probe: Literal["scale_sensitivity"] = "scale_sensitivity"
    pairs: int = Field(64, ge=2, le=400)
    """Answer pairs that are asked at each scale, evenly over the categories."""
    scales: tuple[Annotated[float, Field(gt=0, le=MAX_SCALE)], ...] = Field((1.0, 2.0, 4.0), min_length=1, max_length=8)
    """Factors of what the adapter adds; 1 is the adapter as it is released."""

    @field_validator("scales")
    @classmethod
    def _differ(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(scales)) != len(scales) or not all(map(math.isfinite, scales)):
            raise ValueError(f"scales {list(scales)} must differ from each other")
        return scales

    def most_to(self, prompts: int, metric: str) -> MostAnswers:
        """The samples at one scale."""
        return MostAnswers(min(self.pairs, prompts))

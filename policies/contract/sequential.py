"""When a suite looks at its rules before all prompts are asked."""

from __future__ import annotations

import itertools
import math

from pydantic import Field, field_validator

from policies.contract.artifacts import Record


def asked_by(share: float, number: int) -> int:
    """How many of `number` the looks up to that of `share` have asked."""
    return math.ceil(share * number)


class Sequential(Record):
    """Looks at growing shares of the samples; the intervals of all looks hold together (`error_budget`)."""

    looks: tuple[float, ...] = Field((0.125, 0.25, 0.375, 0.5, 1.0), min_length=1, max_length=8)
    """Growing shares of the samples, the last one 1. A probe ends at the first look that settles its rules."""
    stop_at_first_failure: bool = True
    """Skip the probes that are left once an enforced rule has failed: the adapter is rejected whatever they say."""

    @field_validator("looks")
    @classmethod
    def _grow_to_all(cls, looks: tuple[float, ...]) -> tuple[float, ...]:
        if looks[0] <= 0 or looks[-1] != 1 or any(a >= b for a, b in itertools.pairwise(looks)):
            raise ValueError(f"looks {list(looks)} must grow from above 0 to 1, e.g. [0.125, 0.25, 0.5, 1]")
        return looks

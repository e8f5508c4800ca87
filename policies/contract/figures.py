"""A value with its interval."""

from __future__ import annotations

from pydantic import model_validator

from policies.contract.artifacts import Record


class Interval(Record):
    """Both ends of a confidence interval."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"interval [{self.low}, {self.high}] has its ends in the wrong order")
        return self


class Estimate(Record):
    """A value with its interval at the suite's confidence. A value never travels without one."""

    value: float
    interval: Interval

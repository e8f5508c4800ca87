"""What a self-test answers: whether suite, judges and classifier still tell known adapters apart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.judges import JudgeReport
from policies.contract.release import Decision

CanaryName = Literal["good", "bad", "unloaded", "broken"]
DRIFT_FOLDER = "drift"
"""Below `SELF_TEST_FOLDER`: the histories, under the same names."""
SELF_TEST_FOLDER = "self-tests"
"""Below the cache folder: one `<digest of the policy>-<digest of the base>.json` each, read by the worker's metrics."""


class CanaryResult(Record):
    """One known adapter under the policy."""

    canary: CanaryName
    expected: tuple[Decision, ...]
    decision: Decision | None
    """None: it could not be evaluated."""
    explanation: str
    passed: bool
    figures: dict[str, float] = Field(default_factory=dict, exclude_if=lambda figures: not figures)
    """Rule → the figure that its limit speaks of; rules without one are left out."""


class DriftHistory(Record):
    """The figures of a base model's canaries under a policy, self-test by self-test."""

    policy: Digest
    base_model: Digest
    calibration: Digest | None
    """A new calibration begins a new history."""
    n_looks: int = Field(0, ge=0)
    series: dict[str, tuple[float | None, ...]]
    """`<canary> <rule>` → its figure at each look, the oldest first; None where it was not measured."""
    highest: float = Field(0.0, ge=0, exclude_if=lambda value: value == 0.0)
    """The highest e-value that was ever told; no later look takes it back. Histories without it keep their digest."""


class Drift(Record):
    """Whether the canaries' figures are still those of before."""

    n_looks: int = Field(ge=1)
    """Self-tests in the history, this one included."""
    e_value: float = Field(ge=0)
    """The highest so far; see `evaluator/self_test/exchangeability.py`."""
    threshold: float = Field(gt=0)
    most_moved: tuple[str, ...]
    """The series that speak most for a drift, at most three."""

    @property
    def is_alarm(self) -> bool:
        return self.e_value >= self.threshold

    @property
    def told(self) -> str:
        return (
            f"the canaries' figures have drifted (e-value {self.e_value:.3g}, alarm at {self.threshold:g}), most in "
            f"{', '.join(self.most_moved)}"
        )


class SelfTestReport(Record):
    """All canaries under one policy."""

    policy: Digest
    policy_name: str
    base_model: Digest
    canaries: tuple[CanaryResult, ...] = Field(min_length=1)
    judges: tuple[JudgeReport, ...] = ()
    finished_at: float
    """Unix seconds."""
    last_passed_at: float | None
    """Of this policy on this base, this run included."""
    calibration: Digest | None = Field(None, exclude_if=lambda value: value is None)
    drift: Drift | None = Field(None, exclude_if=lambda value: value is None)
    """None where no figure was measured."""

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.canaries)

"""What a self-test answers: whether suite, judges and classifier still tell known adapters apart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.judges import JudgeReport
from policies.contract.release import Decision

CanaryName = Literal["good", "bad", "unloaded", "broken"]
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

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.canaries)

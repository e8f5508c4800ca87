"""What a policy says of a rule besides its limit: how strictly it holds, and when it is looked at."""

from __future__ import annotations

from typing import Literal

from policies.contract.suite import DIVISIBLE_PROBES
from policies.documents.schema import ReleasePolicy, Rule

_STRICTNESS = {"enforce": 0, "warn": 1, "audit": 2}


def looks_of(probe: str, policy: ReleasePolicy) -> tuple[float, ...]:
    """Shares of the samples at which the probe's rules are looked at."""
    sequential = policy.spec.suite.sequential
    return sequential.looks if sequential and probe in DIVISIBLE_PROBES else (1.0,)


def mode_of(rule: Rule, policy: ReleasePolicy) -> Literal["enforce", "warn", "audit"]:
    """The weaker of the rule's mode and the policy's."""
    return max(rule.mode, policy.spec.mode, key=_STRICTNESS.__getitem__)

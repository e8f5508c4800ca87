"""The verdict and what a release is made of."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import Estimate
from policies.contract.jobs import Lineage


class Decision(StrEnum):
    """What becomes of an adapter."""

    RELEASE = "release"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"


RuleOutcome = Literal["pass", "fail", "inconclusive", "error", "skipped"]
"""`error`: not measured, or measured on the wrong thing. `skipped`: not measured, because the evaluation ended at an
enforced rule that failed before. Neither is ever a pass."""


class RuleResult(Record):
    """One rule applied to one report."""

    rule: str
    mode: Literal["enforce", "warn", "audit"]
    outcome: RuleOutcome
    metric: str
    bound: Literal["max", "min", "max_increase_over_base", "max_drop_from_base"]
    limit: float
    unit: str | None = None
    judged: Estimate | None = None
    """The figure compared with the limit: the value itself, or the increase or drop against base."""
    adapter: Estimate | None = None
    base: Estimate | None = None
    n_scored: int | None = None
    n_clusters: int | None = None
    samples_to_settle: int | None = None
    """For `inconclusive`: about how many samples would bring the interval clear of the limit."""
    false_block_le: float | None = Field(None, exclude_if=lambda value: value is None)
    """At most this share of benign adapters is not released by the rule, by the base model's calibration. None, and
    left out of the digest, where there is none; so with the two below."""
    miss_le: float | None = Field(None, exclude_if=lambda value: value is None)
    """At most this share of harmful adapters, of the kinds that the calibration stands on, is released by the rule."""
    detectable_change: float | None = Field(None, exclude_if=lambda value: value is None)
    """A smaller true change is mostly not settled."""
    reason: str


class GateDecision(Record):
    """The verdict over one report under one policy; recomputable from both."""

    decision: Decision
    policy: Digest
    report: Digest
    adapter: Digest
    results: tuple[RuleResult, ...]
    reasons: tuple[str, ...]
    """What stopped the release, one sentence each; empty for a release."""
    calibration: Digest | None = Field(None, exclude_if=lambda value: value is None)
    """The `CalibrationRecord` of the base model that the rules' error rates are from."""
    warnings: tuple[str, ...] = Field((), exclude_if=lambda value: value == ())
    """What the calibration says against rules that decided all the same; left out of the digest where there is none."""


class Confirmation(Record):
    """The second evaluation of a release, by digests."""

    report: Digest
    decision: Digest


class AdapterManifest(Record):
    """What a released name stands for."""

    model: str
    """`ft:{base}:{organisation}:{suffix}:{id}`."""
    job_id: str
    adapter: Digest
    base_model_name: str
    base_model: Digest
    spec: Digest
    training_record: Digest
    report: Digest
    policy: Digest
    decision: Digest
    confirmation: Confirmation | None = Field(None, exclude_if=lambda value: value is None)
    """Where the policy demands two evaluators; left out otherwise, as manifests of before it existed."""
    continues: Lineage | None = Field(None, exclude_if=lambda value: value is None)
    """The released models that this one was continued from, down to the base; left out where there are none."""
    created_at: int
    """Unix seconds."""

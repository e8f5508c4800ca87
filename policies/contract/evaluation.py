"""What evaluation answers: measurements with intervals and base values, probe results, the report, samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.figures import Estimate as Estimate
from policies.contract.figures import Interval as Interval
from policies.contract.judges import JudgeReport
from policies.contract.probe_overlap import OverlapScan, TwinResult

Engine = Literal["transformers", "vllm"]
"""What runs the models of an evaluation."""

WORST_OF = "worst of "
"""Begins the method of a measurement that speaks for the worst of several parts."""


class Measurement(Record):
    """One metric of the adapter, the same metric of the base, and the paired difference adapter − base."""

    metric: str
    """`<probe>.<metric>`, one of `policies.contract.metrics.METRICS`."""
    unit: str
    higher_is_better: bool
    adapter: Estimate | None
    base: Estimate | None
    difference: Estimate | None
    """None where nothing could be measured; the gate never reads None as a pass."""
    n_requested: int = Field(ge=0)
    n_scored: int = Field(ge=0)
    """Samples that count for the adapter and for the base."""
    n_errored: int = Field(0, ge=0)
    n_truncated: int = Field(0, ge=0)
    n_counted: int | None = Field(None, ge=0)
    """Adapter samples in the denominator where a rate is over some of the scored ones only, e.g. coherent answers."""
    n_clusters: int = Field(ge=0)
    p_value: float | None = Field(None, ge=0, le=1)
    """Exact McNemar test of no change, for shares of independent prompts."""
    method: str
    """How the interval was made, e.g. `cluster bootstrap over categories, 10000 resamples`."""
    by_group: dict[str, float] = Field(default_factory=dict)
    """Adapter value (or paired difference, as `method` says) per sub-set or category, for reports only."""

    @property
    def is_of_worst_part(self) -> bool:
        """Whether each figure is that of the part that is worst in it, so that they don't belong to one another."""
        return self.method.startswith(WORST_OF)


class ProbeResult(Record):
    """One probe's answer. `error` set means the probe failed: its rules are errors, never passes."""

    probe: str
    version: str
    settings: Digest
    prompts: Digest
    instruments: tuple[str, ...] = ()
    """What its scores depend on besides model, settings and prompts, e.g. a classifier, a file or a task's version."""
    measurements: tuple[Measurement, ...] = ()
    error: str | None = None
    is_mendable: bool = Field(False, exclude_if=lambda value: not value)
    """Whether another try might measure what this one did not: judges or canaries were not at hand, say."""
    seconds: float = Field(ge=0)
    base_from_cache: bool = False
    look: int = Field(0, ge=0)
    """Index of the look at which the probe ended; 0 where the suite looks once."""
    confidence: float = Field(gt=0, lt=1)
    """Of this probe's intervals: the suite's, less what the looks and earlier attempts have spent."""
    twin: TwinResult | None = Field(None, exclude_if=lambda value: value is None)
    """Where the policy names a secret twin of the prompts: then each measurement is that of the worse set. Left out of
    the digest otherwise, as below."""


class AdapterProof(Record):
    """Proof that the adapter was in force: its digest and how far its logits are from the base's."""

    adapter: Digest
    base_model: Digest
    n_prompts: int = Field(ge=1)
    max_abs_logit_difference: float = Field(ge=0)
    n_adapted_modules: int = Field(ge=0)
    loaded: bool


class CandidateResult(Record):
    """An adapter of the same training run that was evaluated under the same policy."""

    step: int = Field(ge=1)
    adapter: Digest
    decision: Literal["release", "reject", "inconclusive"]
    report: Digest | None = None
    """None: the report that this stands in."""
    valid_loss: float | None = None
    changes: dict[str, Estimate] = Field(default_factory=dict)
    """Metric → paired change against base."""


class EvalReport(Record):
    """All that was measured on one adapter; the gate reads this and the policy, nothing else."""

    spec: Digest | None
    """The job's spec; None for an adapter that was trained elsewhere."""
    policy: Digest
    adapter: Digest
    base_model: Digest
    suite: Digest
    confidence: float = Field(gt=0, lt=1)
    """Of the suite; each probe says what its intervals have."""
    attempt: int = Field(1, ge=1)
    """1, or more where adapters of nearly the same training file were evaluated before."""
    proof: AdapterProof
    judges: tuple[JudgeReport, ...] = ()
    probes: tuple[ProbeResult, ...]
    weight_statistics: dict[str, float] = Field(default_factory=dict, exclude_if=lambda figures: not figures)
    """Figures of the adapter's weights alone, recorded and judged by no rule. Left out of the digest while there are
    none, so that reports of before they existed keep theirs."""
    candidates: tuple[CandidateResult, ...] = ()
    """Checkpoints and final adapter, most capable first, where the policy may release any of them."""
    samples: Digest | None = None
    """JSONL artifact of `SampleRecord`s."""
    samples_root: Digest | None = None
    """Merkle root over the lines of `samples`, so that one sample can be shown to belong to the report."""
    overlap: OverlapScan | None = Field(None, exclude_if=lambda value: value is None)
    """Training rows that are near what probes ask; None where the training file was not at hand."""
    dtype: str
    engine: Engine
    versions: dict[str, str]
    generation_tokens_per_second: float | None = None
    seconds: float = Field(ge=0)

    def measurement(self, metric: str) -> Measurement | None:
        """The one measurement of that name, or None; two of one name count as none."""
        found = [m for probe in self.probes if probe.error is None for m in probe.measurements if m.metric == metric]
        return found[0] if len(found) == 1 else None


class SampleOutcome(Record):
    """What one model did, and its score."""

    output: str | None = None
    score: float | None
    weight: float = 1.0
    """What the score is a sum over, e.g. tokens; 0 keeps an answer out of the denominator."""
    truncated: bool = False
    error: str | None = None
    """Why there is no score."""


class SampleRecord(Record):
    """Adapter and base on one prompt, with all that the probe's figures are computed from."""

    probe: str
    metric: str
    """The metric that the scores count for."""
    prompt_id: str
    cluster: str
    prompt: str
    adapter: SampleOutcome
    base: SampleOutcome

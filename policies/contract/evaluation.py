"""What evaluation answers: measurements with intervals and base values, probe results, the report, samples."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from policies.contract.artifacts import Digest, Record


class Interval(Record):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"interval [{self.low}, {self.high}] has its ends swapped")
        return self


class Estimate(Record):
    """A value with its interval at the suite's confidence. A value never travels without one."""

    value: float
    interval: Interval


class Measurement(Record):
    """One metric of the adapter, the same metric of the base, and the paired difference adapter − base."""

    metric: str
    """`<probe>.<metric>`, one of `policies.contract.suite.METRICS`."""
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
    n_clusters: int = Field(ge=0)
    method: str
    """How the interval was made, e.g. `cluster bootstrap over categories, 10000 resamples`."""
    by_group: dict[str, float] = Field(default_factory=dict)
    """Adapter value (or paired difference, as `method` says) per sub-set or category, for reports only."""


class ProbeResult(Record):
    """One probe's answer. `error` set means the probe failed: its rules are errors, never passes."""

    probe: str
    version: str
    settings: Digest
    prompts: Digest
    measurements: tuple[Measurement, ...] = ()
    error: str | None = None
    seconds: float = Field(ge=0)
    base_from_cache: bool = False


class AdapterProof(Record):
    """Proof that the adapter was in force: its digest and how far its logits are from the base's."""

    adapter: Digest
    base_model: Digest
    n_prompts: int = Field(ge=1)
    max_abs_logit_difference: float = Field(ge=0)
    n_adapted_modules: int = Field(ge=0)
    loaded: bool


class EvalReport(Record):
    """All that was measured on one adapter; the gate reads this and the policy, nothing else."""

    spec: Digest | None
    """The job's spec; None for an adapter that was trained elsewhere."""
    policy: Digest
    adapter: Digest
    base_model: Digest
    suite: Digest
    confidence: float = Field(gt=0, lt=1)
    proof: AdapterProof
    probes: tuple[ProbeResult, ...]
    samples: Digest | None = None
    """JSONL artifact of `SampleRecord`s."""
    dtype: str
    engine: Literal["transformers", "vllm"]
    versions: dict[str, str]
    generation_tokens_per_second: float | None = None
    seconds: float = Field(ge=0)

    def measurement(self, metric: str) -> Measurement | None:
        """The one measurement of that name, or None; two of one name count as none."""
        found = [m for probe in self.probes if probe.error is None for m in probe.measurements if m.metric == metric]
        return found[0] if len(found) == 1 else None


class SampleRecord(Record):
    """One scored sample of adapter and base on one prompt, kept so that it can be scored again."""

    probe: str
    prompt_id: str
    cluster: str
    prompt: str
    adapter_output: str | None = None
    base_output: str | None = None
    adapter_score: float | None
    base_score: float | None
    error: str | None = None

"""The table of probes, and the runner of one: adapter and base on the same prompts, then the figures.

A probe that can't be run gives a result with `error` set and no measurements, which the gate never reads as a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from evaluator.base_cache import BaseCache, BaseKey
from evaluator.probe import Pair, Probe, PromptItem, Sample, Subject, pair_samples
from evaluator.probes.capability import CapabilityProbe
from evaluator.probes.coherence import CoherenceProbe
from evaluator.probes.emergent_misalignment_preference import PreferenceProbe
from evaluator.probes.toxicity import ToxicityProbe
from evaluator.prompt_sets import load_prompts, parse_prompts
from policies.contract.artifacts import ArtifactStore, Digest, Record
from policies.contract.evaluation import Measurement, ProbeResult, SampleRecord
from policies.contract.suite import Capability, Coherence, EmergentMisalignmentPreference, ProbeSettings, Toxicity
from policies.errors import EvaluationError

AnyProbe = Probe[Any, Any]  # Any: the table pairs each probe with its settings, which a mapping's type can't say

PROBES: Mapping[type[Record], AnyProbe] = {
    Toxicity: ToxicityProbe(),
    EmergentMisalignmentPreference: PreferenceProbe(),
    Coherence: CoherenceProbe(),
    Capability: CapabilityProbe(),
}
"""settings → probe: the only place that lists probes."""


@dataclass(frozen=True)
class Bench:
    """Everything that the probes of one evaluation share."""

    adapter: Subject
    base: Subject
    base_model: Digest
    confidence: float
    cache: BaseCache
    store: ArtifactStore | None = None
    clock: Callable[[], float] = time.monotonic


class ProbeOutcome(NamedTuple):
    result: ProbeResult
    samples: tuple[SampleRecord, ...]


def run_probe(settings: ProbeSettings, bench: Bench) -> ProbeOutcome:
    """Run one probe on adapter and base. The base's samples come from the cache where it has them."""
    probe = PROBES[type(settings)]
    started = bench.clock()
    prompts = load_prompts(probe.name, settings.prompts, bench.store)
    pairs: tuple[Pair, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    error, cached = None, False
    try:
        items = parse_prompts(prompts.content, probe.item_type)
        key = _base_key(probe, settings, prompts.digest, bench=bench)
        adapter = probe.sample(settings, items, bench.adapter)
        base, cached = _base_samples(probe, settings, items, bench=bench, key=key)
        pairs = pair_samples(adapter, base)
        measurements = probe.measure(settings, pairs, bench.confidence)
    except EvaluationError as failure:
        error = str(failure)
    result = ProbeResult(
        probe=probe.name,
        version=probe.version,
        settings=settings.digest,
        prompts=prompts.digest,
        measurements=measurements,
        error=error,
        seconds=max(0.0, bench.clock() - started),
        base_from_cache=cached,
    )
    return ProbeOutcome(result, tuple(_sample_record(probe.name, pair) for pair in pairs))


def _base_samples(
    probe: AnyProbe, settings: ProbeSettings, items: Sequence[PromptItem], *, bench: Bench, key: BaseKey
) -> tuple[Sequence[Sample], bool]:
    found = bench.cache.read(key)
    if found is not None:
        return found, True
    samples = probe.sample(settings, items, bench.base)
    bench.cache.write(key, samples)
    return samples, False


def _base_key(probe: AnyProbe, settings: ProbeSettings, prompts: Digest, *, bench: Bench) -> BaseKey:
    backend = bench.base.backend
    return BaseKey(
        base_model=bench.base_model,
        probe=probe.name,
        probe_version=probe.version,
        settings=settings.digest,
        prompts=prompts,
        instruments=probe.instruments(settings, bench.base),
        seed=bench.base.seed,
        dtype=backend.dtype,
        engine=backend.engine,
        versions=backend.versions,
    )


def _sample_record(probe: str, pair: Pair) -> SampleRecord:
    adapter, base = pair
    return SampleRecord(
        probe=probe,
        prompt_id=adapter.prompt_id,
        cluster=adapter.cluster,
        prompt=adapter.prompt,
        adapter_output=adapter.output,
        base_output=base.output,
        adapter_score=adapter.score,
        base_score=base.score,
        error=adapter.error or base.error,
    )

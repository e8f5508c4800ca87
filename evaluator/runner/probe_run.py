"""The table of probes, and the runner of one: adapter and base on the same prompts, then the figures.

A probe that can't be run gives a result with `error` set and no measurements, which the gate never reads as a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from evaluator.gate import Standing, standing
from evaluator.probe import AsksRows, CountsSamples, DividesItself
from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.prompt_sets import LoadedPrompts, load_prompts, parse_prompts
from evaluator.runner.base_cache import BaseCache, BaseKey
from evaluator.runner.registry import PROBES, AnyProbe
from evaluator.samples import Pair, Sample, join_pairs, pair_samples
from evaluator.sequential_looks import cut, spread
from evaluator.subject import Subject
from policies.contract.artifacts import Digest, Record, digest_bytes
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import Measurement, ProbeResult, SampleRecord
from policies.contract.store import ArtifactStore
from policies.contract.suite import (
    EvalSuite,
    ProbeSettings,
)
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError

TRAINING_FILE, TASKS = "training_file", "tasks"
"""Where a probe without a prompt set has its prompts from."""
NO_FILE = digest_bytes(b"")
"""Stands for a training file that is not at hand, and for tasks, which the probe's instruments name."""


@dataclass(frozen=True)
class Bench:
    """Everything that the probes of one evaluation share."""

    adapter: Subject
    base: Subject
    base_model: Digest
    suite: EvalSuite
    cache: BaseCache
    store: ArtifactStore | None = None
    cache_dir: Path | None = None
    """Where prompt sets of others are kept; None: the hub client's own cache."""
    attempt: int = 1
    candidates: int = 1
    """How many adapters of the job may come to be released."""
    policy: ReleasePolicy | None = None
    """Whose rules end a probe at a look; None: every prompt is asked."""
    probes: Mapping[type[Record], AnyProbe] = field(default_factory=lambda: PROBES)
    clock: Callable[[], float] = time.monotonic

    def confidence(self, probe: str, look: int) -> float:
        return probe_confidence(self.suite, probe, look, attempt=self.attempt, candidates=self.candidates)


class ProbeOutcome(NamedTuple):
    """What one probe measured, on which samples, and whether its rules are settled by it."""

    result: ProbeResult
    samples: tuple[SampleRecord, ...]
    standing: Standing = Standing.OPEN


@dataclass
class _Run:
    """A probe on its way through the looks."""

    probe: AnyProbe
    settings: ProbeSettings
    prompts: Digest
    bench: Bench
    look: int = 0
    pairs: tuple[Pair, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    standing: Standing = Standing.OPEN
    base_from_cache: bool = True
    instruments: tuple[str, ...] = ()

    def take_looks(self, parts: Sequence[Sequence[PromptItem]]) -> None:
        """Sample part after part until the rules are settled; too little for a figure settles nothing."""
        last = max((index for index, part in enumerate(parts) if part), default=0)
        for look, part in enumerate(parts):
            if not part and look != last:
                continue
            self.look = look
            self._sample(part)
            try:
                self._measure()
            except EvaluationError:
                if look == last:
                    raise
            if self.standing is not Standing.OPEN or look == last:
                break

    def _sample(self, part: Sequence[PromptItem]) -> None:
        adapter = _samples(self.probe, self.settings, part, subject=self.bench.adapter)
        self.pairs = join_pairs(self.pairs, pair_samples(adapter, self.sample_base(part)))

    def sample_base(self, part: Sequence[PromptItem]) -> tuple[Sample, ...]:
        """The base's samples: remembered, or measured by one process while others that want them wait."""
        self.instruments = self.probe.instruments(self.settings, self.bench.base)
        key = self._base_key(part)
        with self.bench.cache.claimed(key):
            base = self.bench.cache.read(key)
            if base is None:
                self.base_from_cache = False
                base = self._measure_base(part, key)
        return base

    def _measure_base(self, part: Sequence[PromptItem], key: BaseKey) -> tuple[Sample, ...]:
        """Remembered unless judges owe scores that they might give at another try."""
        n_mendable = self.bench.base.n_mendable
        base = tuple(_samples(self.probe, self.settings, part, subject=self.bench.base))
        if self.bench.base.n_mendable == n_mendable:
            self.bench.cache.write(key, base)
        return base

    def _base_key(self, part: Sequence[PromptItem]) -> BaseKey:
        base = self.bench.base
        return BaseKey(
            base_model=self.bench.base_model,
            probe=self.probe.name,
            probe_version=self.probe.version,
            settings=self.settings.digest,
            prompts=self.prompts,
            part=digest_bytes("\n".join(item.digest for item in part).encode()),
            instruments=self.instruments,
            seed=base.seed,
            dtype=base.backend.dtype,
            engine=base.backend.engine,
            versions=base.backend.versions,
        )

    def _measure(self) -> None:
        confidence = self.bench.confidence(self.probe.name, self.look)
        self.measurements = self.probe.measure(self.settings, self.pairs, confidence)
        if self.bench.policy is not None:
            self.standing = standing(self.bench.policy, self.probe.name, self.measurements)


def run_probe(settings: ProbeSettings, bench: Bench) -> ProbeOutcome:
    """Run one probe on adapter and base, look by look. The base's samples come from the cache where it has them."""
    probe, started, error = bench.probes[type(settings)], bench.clock(), None
    prompts = _prompts(probe, settings, bench)
    run = _Run(probe, settings, prompts.digest, bench)
    try:
        items = _items(probe, settings, prompts, bench.adapter)
        run.take_looks(_parts(probe, settings, items, suite=bench.suite))
    except EvaluationError as failure:
        run.measurements, error = (), str(failure)
    result = ProbeResult(
        probe=probe.name,
        version=probe.version,
        settings=settings.digest,
        prompts=prompts.digest,
        instruments=run.instruments,
        measurements=run.measurements,
        error=error,
        seconds=max(0.0, bench.clock() - started),
        base_from_cache=run.base_from_cache and bool(run.pairs),
        look=run.look,
        confidence=bench.confidence(probe.name, run.look),
    )
    return ProbeOutcome(result, tuple(_sample_record(probe.name, pair) for pair in run.pairs), run.standing)


def measure_base(settings: ProbeSettings, bench: Bench) -> int:
    """Have the cache hold what the base does on one probe, at every look; returns the number of samples.

    Raises:
        EvaluationError: it can't be measured here.
    """
    probe = bench.probes[type(settings)]
    prompts = _prompts(probe, settings, bench)
    run = _Run(probe, settings, prompts.digest, bench)
    items = _items(probe, settings, prompts, bench.base)
    return sum(len(run.sample_base(part)) for part in _parts(probe, settings, items, suite=bench.suite) if part)


def _samples(
    probe: AnyProbe, settings: ProbeSettings, part: Sequence[PromptItem], *, subject: Subject
) -> Sequence[Sample]:
    """What one model does on a part: all that the part asks, because a sample that is not there is no safe one."""
    samples = probe.sample(settings, part, subject)
    owed = probe.n_samples(settings, part, subject) if isinstance(probe, CountsSamples) else len(part)
    if len(samples) != owed:
        raise EvaluationError(f"{probe.name} gave {len(samples)} samples of the {owed} that its prompts ask")
    return samples


def _prompts(probe: AnyProbe, settings: ProbeSettings, bench: Bench) -> LoadedPrompts:
    if settings.prompts == TASKS:
        return LoadedPrompts(NO_FILE, b"")
    if settings.prompts != TRAINING_FILE:
        return load_prompts(probe.name, settings.prompts, bench.store, cache_dir=bench.cache_dir)
    training = bench.adapter.training
    return LoadedPrompts(NO_FILE if training is None else training.digest, b"")


def _items(
    probe: AnyProbe, settings: ProbeSettings, prompts: LoadedPrompts, subject: Subject
) -> tuple[PromptItem, ...]:
    """The prompts, without those of categories that the suite leaves out, and the rows of the job's files."""
    rows = tuple(probe.rows(settings, subject)) if isinstance(probe, AsksRows) else ()
    if settings.prompts in (TRAINING_FILE, TASKS):
        return rows
    items: tuple[PromptItem, ...] = parse_prompts(prompts.content, probe.item_type)
    unknown = set(settings.left_out) - {item.group for item in items}
    if unknown:
        raise EvaluationError(f"exclude_categories names {sorted(unknown)[0]!r}, which the prompt set does not have")
    return tuple(item for item in items if item.group not in settings.left_out) + rows


def _parts(
    probe: AnyProbe, settings: ProbeSettings, items: Sequence[PromptItem], *, suite: EvalSuite
) -> list[Sequence[PromptItem]]:
    """What each look adds: everything at once, or growing shares of the answers or of every group of prompts."""
    if suite.sequential is None or not settings.divides_into_looks:
        return [items]
    ordered, looks = spread(items, suite.seed), suite.sequential.looks
    return probe.divide(settings, ordered, looks) if isinstance(probe, DividesItself) else cut(ordered, looks)


def _sample_record(probe: str, pair: Pair) -> SampleRecord:
    adapter, base = pair
    return SampleRecord(
        probe=probe,
        metric=adapter.metric,
        prompt_id=adapter.prompt_id,
        cluster=adapter.cluster,
        prompt=adapter.prompt,
        adapter=adapter.outcome,
        base=base.outcome,
    )

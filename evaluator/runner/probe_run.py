"""The runner of one probe: adapter and base on the same prompts, then the figures.

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
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import Measurement, ProbeResult, SampleRecord
from policies.contract.probe_record import ProbeRecord
from policies.contract.store import ArtifactStore
from policies.contract.suite import (
    EvalSuite,
    ProbeSettings,
)
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError
from policies.tenant_text import for_tenants

TRAINING_FILE, TASKS = "training_file", "tasks"
"""Where a probe without a prompt set has its prompts from."""
NO_FILE = digest_bytes(b"")
"""Stands for a training file that is not at hand, and for tasks, which the probe's instruments name."""


AtLook = Callable[[str, Sequence[Measurement]], None]
"""Called with a probe's name and its figures at a look, whose intervals have the confidence of that look."""


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
    at_look: AtLook | None = None
    """Told the figures of each look that has some; then every prompt is asked, too."""
    probes: Mapping[type[ProbeRecord], AnyProbe] = field(default_factory=lambda: PROBES)
    clock: Callable[[], float] = time.monotonic

    def confidence(self, probe: str, look: int) -> float:
        return probe_confidence(self.suite, probe, look, attempt=self.attempt, candidates=self.candidates)


class ProbeOutcome(NamedTuple):
    """What one probe measured, on which samples, and whether its rules are settled by it."""

    result: ProbeResult
    samples: tuple[SampleRecord, ...]
    standing: Standing = Standing.OPEN


class _Setup(NamedTuple):
    """A probe with its settings, and where it runs."""

    probe: AnyProbe
    settings: ProbeSettings
    prompts: LoadedPrompts
    bench: Bench

    def parts(self, subject: Subject) -> list[Sequence[PromptItem]]:
        """What each look adds of the prompts that the subject is asked."""
        items = _items(self.probe, self.settings, self.prompts, subject)
        return _parts(self.probe, self.settings, items, suite=self.bench.suite)


class _Sampled(NamedTuple):
    """Adapter and base on all that the looks so far have asked."""

    pairs: tuple[Pair, ...] = ()
    base_from_cache: bool = True
    """Nothing of the base had to be measured."""


class _BaseSamples(NamedTuple):
    samples: tuple[Sample, ...]
    from_cache: bool


class _Figures(NamedTuple):
    """What the samples so far say, and whether that settles the probe's rules."""

    measurements: tuple[Measurement, ...] = ()
    standing: Standing = Standing.OPEN


def run_probe(settings: ProbeSettings, bench: Bench) -> ProbeOutcome:
    """Run one probe on adapter and base, look by look, until its rules are settled.

    The base's samples come from the cache where it has them.
    """
    started, setup = bench.clock(), _setup(settings, bench)
    instruments: tuple[str, ...] = ()
    look, sampled, figures, error = 0, _Sampled(), _Figures(), None
    try:
        asked = _asked(setup.parts(bench.adapter))
        instruments = setup.probe.instruments(settings, bench.base)
        for look, part in asked:
            sampled = _joined(sampled, part, setup, instruments=instruments)
            figures = _measured(sampled.pairs, look, setup, is_last=look == asked[-1][0])
            if figures.standing is not Standing.OPEN:
                break
    except EvaluationError as failure:
        figures, error = _Figures(), for_tenants(str(failure))
    result = ProbeResult(
        probe=setup.probe.name,
        version=setup.probe.version,
        settings=settings.digest,
        prompts=setup.prompts.digest,
        instruments=instruments,
        measurements=figures.measurements,
        error=error,
        seconds=max(0.0, bench.clock() - started),
        base_from_cache=sampled.base_from_cache and bool(sampled.pairs),
        look=look,
        confidence=bench.confidence(setup.probe.name, look),
    )
    records = tuple(_sample_record(setup.probe.name, pair) for pair in sampled.pairs)
    return ProbeOutcome(result, records, figures.standing)


def measure_base(settings: ProbeSettings, bench: Bench) -> int:
    """Have the cache hold what the base does on one probe, at every look; returns the number of samples.

    Raises:
        EvaluationError: it can't be measured here.
    """
    setup = _setup(settings, bench)
    asked = _asked(setup.parts(bench.base))
    instruments = setup.probe.instruments(settings, bench.base)
    return sum(len(_base_samples(part, setup, instruments).samples) for _, part in asked)


def _setup(settings: ProbeSettings, bench: Bench) -> _Setup:
    probe = bench.probes[type(settings)]
    return _Setup(probe, settings, _prompts(probe, settings, bench), bench)


def _asked(parts: Sequence[Sequence[PromptItem]]) -> list[tuple[int, Sequence[PromptItem]]]:
    """Looks that ask something, with what they ask; where none does, the first, which says so."""
    return [(look, part) for look, part in enumerate(parts) if part] or [(0, ())]


def _joined(before: _Sampled, part: Sequence[PromptItem], setup: _Setup, *, instruments: tuple[str, ...]) -> _Sampled:
    """What was sampled before, and the samples of one more part."""
    adapter = _samples(part, setup, setup.bench.adapter)
    base = _base_samples(part, setup, instruments)
    pairs = join_pairs(before.pairs, pair_samples(adapter, base.samples))
    return _Sampled(pairs, before.base_from_cache and base.from_cache)


def _measured(pairs: Sequence[Pair], look: int, setup: _Setup, *, is_last: bool) -> _Figures:
    """The figures at a look; too little for a figure settles nothing, and is an error at the last one."""
    probe, bench = setup.probe, setup.bench
    try:
        measurements = probe.measure(setup.settings, pairs, bench.confidence(probe.name, look))
    except EvaluationError:
        if is_last:
            raise
        return _Figures()
    if bench.at_look is not None:
        bench.at_look(probe.name, measurements)
    if bench.policy is None or bench.at_look is not None:
        return _Figures(measurements)
    return _Figures(measurements, standing(bench.policy, probe.name, measurements))


def _base_samples(part: Sequence[PromptItem], setup: _Setup, instruments: tuple[str, ...]) -> _BaseSamples:
    """The base's samples: remembered, or measured by one process while others that want them wait."""
    key, cache = _base_key(part, setup, instruments), setup.bench.cache
    with cache.claimed(key):
        remembered = cache.read(key)
        if remembered is not None:
            return _BaseSamples(remembered, from_cache=True)
        return _BaseSamples(_measure_base(part, setup, key), from_cache=False)


def _measure_base(part: Sequence[PromptItem], setup: _Setup, key: BaseKey) -> tuple[Sample, ...]:
    """Remembered unless judges owe scores that they might give at another try."""
    subject = setup.bench.base
    n_mendable = subject.n_mendable
    base = tuple(_samples(part, setup, subject))
    if subject.n_mendable == n_mendable:
        setup.bench.cache.write(key, base)
    return base


def _base_key(part: Sequence[PromptItem], setup: _Setup, instruments: tuple[str, ...]) -> BaseKey:
    base = setup.bench.base
    return BaseKey(
        base_model=setup.bench.base_model,
        probe=setup.probe.name,
        probe_version=setup.probe.version,
        settings=setup.settings.digest,
        prompts=setup.prompts.digest,
        part=digest_bytes("\n".join(item.digest for item in part).encode()),
        instruments=instruments,
        seed=base.seed,
        dtype=base.backend.dtype,
        engine=base.backend.engine,
        versions=base.backend.versions,
    )


def _samples(part: Sequence[PromptItem], setup: _Setup, subject: Subject) -> Sequence[Sample]:
    """What one model does on a part: all that the part asks, because a sample that is not there is no safe one."""
    probe, settings = setup.probe, setup.settings
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

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
from evaluator.runner.twin import load_twin, marked, measured, twin_items, twin_result, without_text
from evaluator.samples import Pair, Sample, join_pairs, pair_samples, sample_record
from evaluator.sequential_looks import cut, spread
from evaluator.subject import Subject
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.error_budget import probe_confidence
from policies.contract.evaluation import Measurement, ProbeResult, SampleRecord
from policies.contract.probe_record import ProbeRecord
from policies.contract.store import ArtifactStore
from policies.contract.suite import EvalSuite, ProbeSettings
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError, NotAtHandError
from policies.tenant_text import for_tenants

TRAINING_FILE, TASKS = "training_file", "tasks"
"""Where a probe without a prompt set has its prompts from."""
NO_FILE = digest_bytes(b"")
"""Stands for a training file that is not at hand, and for tasks, which the probe's instruments name."""


AtLook = Callable[[str, Sequence[Measurement], float], None]
"""Called with a probe's name, its figures at a look, and the confidence of their intervals."""


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

    @property
    def n_mendable(self) -> int:
        return self.adapter.n_mendable + self.base.n_mendable

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
    is_twin: bool = False
    """Of the secret prompts beside the known ones."""

    def parts(self, subject: Subject) -> list[Sequence[PromptItem]]:
        """What each look adds of the prompts that the subject is asked."""
        items = _items(self.probe, self.settings, self.prompts, subject)
        return _parts(self.probe, self.settings, items, suite=self.bench.suite)

    def with_twin(self, subject: Subject) -> list[tuple[_Setup, list[Sequence[PromptItem]]]]:
        """This and, where the policy names one, the same on the secret twin; with the parts of either."""
        known = [(self, self.parts(subject))]
        if self.settings.secret_twin is None:
            return known
        loaded = load_twin(self.probe.name, self.settings.secret_twin, self.bench.store)
        twin = self._replace(prompts=loaded, is_twin=True)
        asked = _items(self.probe, self.settings, self.prompts, subject)
        items = twin_items(self.probe, self.settings, loaded, known=asked)
        return [*known, (twin, _parts(self.probe, self.settings, items, suite=self.bench.suite))]


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
    started, setup, owed = bench.clock(), _setup(settings, bench), bench.n_mendable
    instruments: tuple[str, ...] = ()
    look, sampled, figures, error, twin, is_mendable = 0, _Sampled(), _Figures(), None, None, False
    try:
        setups = setup.with_twin(bench.adapter)
        asked = _asked(setups[0][1])
        instruments = setup.probe.instruments(settings, bench.base)
        for look, _ in asked:
            for each, parts in setups:
                sampled = _joined(sampled, parts[look], each, instruments=instruments)
            figures = _measured(sampled.pairs, look, setup, is_last=look == asked[-1][0])
            if figures.standing is not Standing.OPEN:
                break
        twin = twin_result(setup.probe, settings, sampled.pairs, setups[-1][0].prompts)
    except EvaluationError as failure:
        figures, error, is_mendable = _Figures(), for_tenants(str(failure)), isinstance(failure, NotAtHandError)
    result = ProbeResult(
        probe=setup.probe.name,
        version=setup.probe.version,
        settings=settings.digest,
        prompts=setup.prompts.digest,
        instruments=instruments,
        measurements=figures.measurements,
        error=error,
        is_mendable=is_mendable or bench.n_mendable > owed,
        seconds=max(0.0, bench.clock() - started),
        base_from_cache=sampled.base_from_cache and bool(sampled.pairs),
        look=look,
        confidence=bench.confidence(setup.probe.name, look),
        twin=twin,
    )
    records = tuple(without_text(sample_record(setup.probe.name, pair)) for pair in sampled.pairs)
    return ProbeOutcome(result, records, figures.standing)


def measure_base(settings: ProbeSettings, bench: Bench) -> int:
    """Have the cache hold what the base does on one probe, at every look; returns the number of samples.

    Raises:
        EvaluationError: it can't be measured here.
    """
    setup = _setup(settings, bench)
    setups = setup.with_twin(bench.base)
    instruments = setup.probe.instruments(settings, bench.base)
    asked = [(part, each) for each, parts in setups for _, part in _asked(parts)]
    return sum(len(_base_samples(part, each, instruments).samples) for part, each in asked)


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
    new = pair_samples(adapter, base.samples)
    pairs = join_pairs(before.pairs, marked(new) if setup.is_twin else new)
    return _Sampled(pairs, before.base_from_cache and base.from_cache)


def _measured(pairs: Sequence[Pair], look: int, setup: _Setup, *, is_last: bool) -> _Figures:
    """The figures at a look; too little for a figure settles nothing, and is an error at the last one."""
    probe, bench = setup.probe, setup.bench
    confidence = bench.confidence(probe.name, look)
    try:
        measurements = measured(probe, setup.settings, pairs, confidence)
    except EvaluationError:
        if is_last:
            raise
        return _Figures()
    if bench.at_look is not None:
        bench.at_look(probe.name, measurements, confidence)
    if bench.policy is None or bench.at_look is not None:
        return _Figures(measurements)
    return _Figures(measurements, standing(bench.policy, probe.name, measurements, confidence=confidence))


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
        settings=setup.settings.without_twin.digest,
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

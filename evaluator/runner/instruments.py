"""What a suite measures with: opened before the first adapter, so that nothing is found missing after hours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from evaluator.canaries.log_ratio import open_canaries
from evaluator.detectors.classifier import load_classifier
from evaluator.judges.panel import CalibratedPanel, build_panel
from evaluator.probe import ReadsFiles
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.runner.base_results import BaseUnderTest
from evaluator.runner.probe_run import TASKS, TRAINING_FILE
from evaluator.runner.registry import PROBES, AnyProbe
from evaluator.runner.twin import load_twin, twin_items
from evaluator.subject import Subject
from policies.contract.artifacts import Digest
from policies.contract.calibration import ProbeIdentity
from policies.contract.judges import Rubric
from policies.contract.store import ArtifactStore
from policies.contract.suite import EvalSuite, ProbeSettings
from policies.errors import EvaluationError, NotAtHandError, TunegateError


class SuiteInstruments(NamedTuple):
    """All that figures of a suite depend on beside the models and the files of jobs."""

    probes: dict[str, ProbeIdentity]
    instruments: dict[str, tuple[str, ...]]
    """Probe → identities of what scores it, none that come of a job's own file."""
    judges: tuple[Digest, ...]


class Shelf(NamedTuple):
    """Where instruments are kept."""

    cache_dir: Path
    store: ArtifactStore | None


def open_instruments(suite: EvalSuite, base: BaseUnderTest, shelf: Shelf) -> SuiteInstruments:
    """Open the suite's prompt sets and twins, its classifiers, canaries and judges.

    Raises:
        EvaluationError: with every probe that can't be measured here, and why.
    """
    panel = _panel(suite, shelf)
    subject = Subject(
        base.backend,
        adapter=False,
        seed=suite.seed,
        classifiers=lru_cache(lambda name, labels: load_classifier(name, labels, shelf.cache_dir)),
        panel=None if panel is None else lambda: panel,
        canary_pairs=cache(lambda which: open_canaries(base.backend, which, shelf.cache_dir, shelf.store)),
    )
    problems, probes, instruments = [], {}, {}
    for settings in suite.probes:
        probe = PROBES[type(settings)]
        try:
            probes[probe.name] = _identity(probe, settings, shelf)
            instruments[probe.name] = constant_instruments(probe, settings, subject)
        except (TunegateError, OSError) as error:
            problems.append(f"{probe.name}: {error}")
    if problems:
        raise EvaluationError(f"the suite can't be measured here: {'; '.join(problems)}")
    return SuiteInstruments(probes, instruments, () if panel is None else _judges(panel))


def constant_instruments(probe: AnyProbe, settings: ProbeSettings, subject: Subject) -> tuple[str, ...]:
    """Identities of what scores a probe whatever the job."""
    if isinstance(probe, ReadsFiles):
        return probe.constant_instruments(settings, subject)
    return probe.instruments(settings, subject)


def _identity(probe: AnyProbe, settings: ProbeSettings, shelf: Shelf) -> ProbeIdentity:
    if settings.prompts in (TRAINING_FILE, TASKS):
        return ProbeIdentity(version=probe.version)
    loaded = load_prompts(probe.name, settings.prompts, shelf.store, cache_dir=shelf.cache_dir)
    items = parse_prompts(loaded.content, probe.item_type)
    if settings.secret_twin is not None:
        twin = load_twin(probe.name, settings.secret_twin, shelf.store)
        known = [item for item in items if item.group not in settings.left_out]
        twin_items(probe, settings, twin, known=known)
    return ProbeIdentity(version=probe.version, prompts=loaded.digest)


def _panel(suite: EvalSuite, shelf: Shelf) -> CalibratedPanel | None:
    """The suite's judges, which must be fit to score.

    Raises:
        NotAtHandError: one is not.
    """
    if suite.panel is None:
        return None
    panel = build_panel(suite.panel, shelf.cache_dir, store=shelf.store)
    shortfalls = list(dict.fromkeys(_shortfalls(suite, panel)))
    if shortfalls:
        raise NotAtHandError(f"the suite can't be measured here: judge_uncalibrated: {'; '.join(shortfalls)}")
    return panel


def _shortfalls(suite: EvalSuite, panel: CalibratedPanel) -> Iterator[str]:
    for report in panel.reports:
        for settings in suite.probes:
            rubric: Rubric = "compliant" if settings.asks_for_compliance else "aligned"
            why = report.shortfall(rubric) if settings.needs_judges else None
            if why is not None:
                yield why


def _judges(panel: CalibratedPanel) -> tuple[Digest, ...]:
    return tuple(sorted({report.judge for report in panel.reports}))

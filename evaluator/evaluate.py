"""Runs the suite on one adapter and writes the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from evaluator.backend import Backend
from evaluator.base_cache import BaseCache
from evaluator.classifier import load_classifier
from evaluator.probe import Subject, ValidationRows
from evaluator.progress import SuiteProgress, Watch
from evaluator.suite import Bench, run_probe
from policies.contract.artifacts import ArtifactStore, Digest, digest_bytes
from policies.contract.evaluation import AdapterProof, EvalReport, SampleRecord
from policies.contract.suite import EvalSuite


@dataclass(frozen=True)
class Examination:
    """What is to be evaluated under which policy."""

    suite: EvalSuite
    policy: Digest
    proof: AdapterProof
    spec: Digest | None = None
    validation: ValidationRows | None = None


class Evaluation(NamedTuple):
    report: EvalReport
    samples: bytes
    """JSONL of `SampleRecord`s; the report names it by digest."""


def evaluate_adapter(
    examination: Examination,
    backend: Backend,
    *,
    cache_dir: Path,
    store: ArtifactStore | None = None,
    watch: Watch = lambda progress: None,
) -> Evaluation:
    """Run every probe of the suite on the adapter and, where the cache has no answer, on the base.

    Raises:
        IntegrityError: a prompt set has other bytes than its digest says.
    """
    started = time.monotonic()
    suite, proof = examination.suite, examination.proof
    progress = SuiteProgress([settings.probe for settings in suite.probes], watch, time.monotonic)
    bench = _bench(examination, backend, cache_dir=cache_dir, store=store, advance=progress.advance)
    outcomes = []
    for index, settings in enumerate(suite.probes):
        progress.begin(index)
        outcomes.append(run_probe(settings, bench))
    progress.finish()
    samples = _jsonl(record for outcome in outcomes for record in outcome.samples)
    report = EvalReport(
        spec=examination.spec,
        policy=examination.policy,
        adapter=proof.adapter,
        base_model=proof.base_model,
        suite=suite.digest,
        confidence=suite.confidence,
        proof=proof,
        probes=tuple(outcome.result for outcome in outcomes),
        samples=digest_bytes(samples),
        dtype=backend.dtype,
        engine=backend.engine,
        versions=backend.versions | _own_version(),
        generation_tokens_per_second=backend.tokens_per_second(),
        seconds=time.monotonic() - started,
    )
    return Evaluation(report, samples)


def _bench(
    examination: Examination,
    backend: Backend,
    *,
    cache_dir: Path,
    store: ArtifactStore | None,
    advance: Callable[[int, int], None],
) -> Bench:
    adapter = Subject(
        backend,
        adapter=True,
        seed=examination.suite.seed,
        advance=advance,
        classifiers=lru_cache(lambda name, labels: load_classifier(name, labels, cache_dir)),
        validation=examination.validation,
    )
    return Bench(
        adapter=adapter,
        base=replace(adapter, adapter=False),
        base_model=examination.proof.base_model,
        confidence=examination.suite.confidence,
        cache=BaseCache(cache_dir / "base-results"),
        store=store,
    )


def _jsonl(records: Iterable[SampleRecord]) -> bytes:
    return b"".join(record.canonical() + b"\n" for record in records)


def _own_version() -> dict[str, str]:
    """Tunegate's version; a source tree that is not installed has none."""
    try:
        return {"tunegate": version("tunegate")}
    except PackageNotFoundError:
        return {}

"""Measures the base model by a suite before there is an adapter, so that no evaluation has to wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import NamedTuple

from evaluator.backends.protocol import Backend
from evaluator.canaries.log_ratio import open_canaries
from evaluator.detectors.classifier import load_classifier
from evaluator.runner.base_cache import BaseCache
from evaluator.runner.probe_run import Bench, measure_base
from evaluator.subject import FileRows, Subject
from policies.contract.artifacts import Digest
from policies.contract.store import ArtifactStore
from policies.contract.suite import EvalSuite
from policies.errors import EvaluationError


class BaseUnderTest(NamedTuple):
    """An engine with the bare base model, and the files of the jobs to come."""

    backend: Backend
    digest: Digest
    validation: FileRows | None = None
    training: FileRows | None = None
    store: ArtifactStore | None = None
    """Of the operator's prompt sets and canaries."""


class BaseResult(NamedTuple):
    """What came of one probe: samples in the cache, or why there are none."""

    probe: str
    n_samples: int
    seconds: float
    error: str | None = None


def measure_suite(
    suite: EvalSuite, base: BaseUnderTest, *, cache_dir: Path, tell: Callable[[BaseResult], None]
) -> None:
    """Put the base's samples on every probe into the cache, in the suite's order.

    A probe that can't be measured yet is told with its cause and left to the first evaluation: one that judges score,
    or that reads a file which is not at hand.
    """
    subject = Subject(
        base.backend,
        adapter=False,
        seed=suite.seed,
        classifiers=lru_cache(lambda name, labels: load_classifier(name, labels, cache_dir)),
        validation=base.validation,
        training=base.training,
        canary_pairs=cache(lambda which: open_canaries(base.backend, which, cache_dir, base.store)),
    )
    results = BaseCache(cache_dir / "base-results")
    bench = Bench(subject, subject, base.digest, suite, results, base.store, cache_dir=cache_dir)
    for settings in suite.probes:
        started = time.monotonic()
        try:
            n_samples, error = measure_base(settings, bench), None
        except EvaluationError as failure:
            n_samples, error = 0, str(failure)
        tell(BaseResult(settings.probe, n_samples, time.monotonic() - started, error))

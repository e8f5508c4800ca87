"""Runs the suite on one adapter and writes the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from evaluator.backends.protocol import Backend
from evaluator.canaries.log_ratio import open_canaries
from evaluator.detectors.classifier import load_classifier
from evaluator.gate import Standing
from evaluator.judges.judge import JudgePanel
from evaluator.runner.base_cache import BaseCache
from evaluator.runner.overlap import scan_training
from evaluator.runner.probe_run import AtLook, Bench, ProbeOutcome, run_probe
from evaluator.runner.progress import SuiteProgress, Watch
from evaluator.subject import FileRows, Subject
from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.evaluation import AdapterProof, EvalReport, SampleRecord
from policies.contract.judges import JudgeReport
from policies.contract.merkle import jsonl_lines, merkle_root
from policies.contract.probe_overlap import OverlapScan
from policies.contract.store import ArtifactStore
from policies.contract.suite import EvalSuite
from policies.documents.schema import ReleasePolicy
from policies.errors import EvaluationError


@dataclass(frozen=True)
class EvaluationInputs:
    """What is to be evaluated under which policy."""

    suite: EvalSuite
    policy: Digest
    proof: AdapterProof
    spec: Digest | None = None
    validation: FileRows | None = None
    training: FileRows | None = None
    training_file: Path | None = None
    """Searched for prompts of the suite."""
    lineage: tuple[FileRows, ...] = ()
    lineage_files: tuple[Path, ...] = ()
    """Searched as the training file is."""
    rules: ReleasePolicy | None = None
    """The policy itself, where its rules may end the evaluation early."""
    attempt: int = 1
    at_look: AtLook | None = None
    """Told the figures of each look; then every prompt is asked, whatever the rules say."""
    weight_statistics: Mapping[str, float] = field(default_factory=dict)
    """Of the adapter's file, for the report."""


class Evaluation(NamedTuple):
    """What an evaluation leaves behind: its report and the samples that the report rests on."""

    report: EvalReport
    samples: bytes
    """JSONL of `SampleRecord`s; the report names it by digest."""


def evaluate_adapter(
    inputs: EvaluationInputs,
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
    suite, proof = inputs.suite, inputs.proof
    progress = SuiteProgress([settings.probe for settings in suite.probes], watch, time.monotonic)
    bench = _bench(inputs, backend, cache_dir=cache_dir, store=store, advance=progress.advance)
    outcomes = _run_probes(suite, bench, progress)
    samples = _jsonl(record for outcome in outcomes for record in outcome.samples)
    report = EvalReport(
        spec=inputs.spec,
        policy=inputs.policy,
        adapter=proof.adapter,
        base_model=proof.base_model,
        suite=suite.digest,
        confidence=suite.confidence,
        attempt=inputs.attempt,
        proof=proof,
        weight_statistics=dict(inputs.weight_statistics),
        judges=_judge_reports(bench.adapter),
        probes=tuple(outcome.result for outcome in outcomes),
        samples=digest_bytes(samples),
        samples_root=merkle_root(jsonl_lines(samples)),
        overlap=_overlap(inputs, store, cache_dir),
        dtype=backend.dtype,
        engine=backend.engine,
        versions=backend.versions | _own_version(),
        generation_tokens_per_second=backend.tokens_per_second(),
        seconds=time.monotonic() - started,
    )
    return Evaluation(report, samples)


def _overlap(inputs: EvaluationInputs, store: ArtifactStore | None, cache_dir: Path) -> OverlapScan | None:
    """None where the training file is not at hand."""
    if inputs.training_file is None:
        return None
    return scan_training(inputs.suite, inputs.training_file, store, earlier=inputs.lineage_files, cache_dir=cache_dir)


def _run_probes(suite: EvalSuite, bench: Bench, progress: SuiteProgress) -> list[ProbeOutcome]:
    """Every probe in the suite's order; one that is skipped after a failed rule is not in the report."""
    outcomes: list[ProbeOutcome] = []
    for index, settings in enumerate(suite.probes):
        progress.begin(index)
        outcomes.append(run_probe(settings, bench))
        has_failed = outcomes[-1].standing is Standing.FAILED
        if has_failed and suite.sequential is not None and suite.sequential.stop_at_first_failure:
            break
    progress.finish([outcome.result for outcome in outcomes])
    return outcomes


def _bench(
    inputs: EvaluationInputs,
    backend: Backend,
    *,
    cache_dir: Path,
    store: ArtifactStore | None,
    advance: Callable[[int, int], None],
) -> Bench:
    adapter = Subject(
        backend,
        adapter=True,
        seed=inputs.suite.seed,
        draw_key=f"{inputs.suite.seed} {inputs.proof.adapter}",
        advance=advance,
        classifiers=lru_cache(lambda name, labels: load_classifier(name, labels, cache_dir)),
        validation=inputs.validation,
        training=inputs.training,
        lineage=inputs.lineage,
        panel=_panel(inputs.suite, cache_dir, store),
        canary_pairs=cache(lambda which: open_canaries(backend, which, cache_dir, store)),
    )
    return Bench(
        adapter=adapter,
        base=replace(adapter, adapter=False),
        base_model=inputs.proof.base_model,
        suite=inputs.suite,
        cache=BaseCache(cache_dir / "base-results"),
        store=store,
        cache_dir=cache_dir,
        attempt=inputs.attempt,
        candidates=inputs.rules.spec.n_candidates if inputs.rules else 1,
        policy=inputs.rules,
        at_look=inputs.at_look,
    )


def _panel(suite: EvalSuite, cache_dir: Path, store: ArtifactStore | None) -> Callable[[], JudgePanel] | None:
    """The suite's judges, loaded and calibrated when a probe first asks for them; what fails is not tried again."""
    settings = suite.panel
    if settings is None:
        return None
    from evaluator.judges.panel import build_panel

    @cache
    def build() -> JudgePanel | EvaluationError:
        try:
            return build_panel(settings, cache_dir, store=store)
        except EvaluationError as error:
            return error

    def panel() -> JudgePanel:
        built = build()
        if isinstance(built, EvaluationError):
            raise built
        return built

    return panel


def _judge_reports(subject: Subject) -> tuple[JudgeReport, ...]:
    """What the judges showed; none where they can't be had, which is the error of every judged probe already."""
    if subject.panel is None:
        return ()
    try:
        return subject.judges().reports
    except EvaluationError:
        return ()


def _jsonl(records: Iterable[SampleRecord]) -> bytes:
    return b"".join(record.canonical() + b"\n" for record in records)


def _own_version() -> dict[str, str]:
    """Tunegate's version; a source tree that is not installed has none."""
    try:
        return {"tunegate": version("tunegate")}
    except PackageNotFoundError:
        return {}

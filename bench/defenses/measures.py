"""The figures of one adapter in `bench.defenses`: by the evaluator's suite on chat data, by answers on OpSwap."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from bench.defenses.held_out import HeldOut
from bench.defenses.records import INCOHERENT, MARGIN, Run
from evaluator.backends.adapter_proof import prove_adapter
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.models.adapters import attach_adapter
from evaluator.models.loading import load_base, resolve_base_model
from evaluator.runner.base_cache import BaseCache
from evaluator.runner.evaluate import EvaluationInputs, evaluate_adapter
from policies.contract.artifacts import digest_tree
from policies.contract.evaluation import Estimate, EvalReport, Measurement
from policies.errors import AdapterNotLoadedError, EvaluationError


class Measured(NamedTuple):
    """Name → figure of the adapter and of its base; stage → seconds."""

    figures: dict[str, Estimate]
    base_figures: dict[str, Estimate]
    stage_seconds: dict[str, float]


def measure(run: Run, adapter: Path, *, held_out: Path, cache_dir: Path) -> Measured:
    """All figures of the run's task.

    Raises:
        EvaluationError: a figure can't be had; none is left out.
    """
    job, started = run.job, time.monotonic()
    loaded = attach_adapter(load_base(resolve_base_model(job.base_model, cache_dir)), adapter)
    backend = TransformersBackend(loaded)
    proof = prove_adapter(backend, loaded, digest_tree(adapter))
    if not proof.loaded:
        raise AdapterNotLoadedError("the adapter changes nothing, so nothing was learned")
    stage_seconds = {"loading": time.monotonic() - started}
    rows = HeldOut(loaded, backend, held_out, job.base_model.max_sequence_tokens, BaseCache(cache_dir / "base-results"))
    learned = rows.token_figures() | (rows.opswap_figures() if run.task == "opswap" else {})
    stage_seconds["held_out"] = time.monotonic() - started - stage_seconds["loading"]
    figures = {name: figure.after for name, figure in learned.items()}
    base_figures = {name: figure.before for name, figure in learned.items()}
    if run.task == "chat":
        inputs = EvaluationInputs(suite=job.suite, policy=job.policy, proof=proof, spec=job.digest)
        report = evaluate_adapter(inputs, backend, cache_dir=cache_dir).report
        stage_seconds |= {probe.probe: probe.seconds for probe in report.probes}
        margin, incoherent = _measurement(report, MARGIN), _measurement(report, INCOHERENT)
        figures |= {"ema_change": _known(margin.difference), "incoherent_rate": _known(incoherent.adapter)}
        base_figures |= {"incoherent_rate": _known(incoherent.base)}
    return Measured(figures, base_figures, stage_seconds)


def _measurement(report: EvalReport, metric: str) -> Measurement:
    measurement = report.measurement(metric)
    if measurement is None:
        errors = [probe.error for probe in report.probes if probe.error is not None]
        raise EvaluationError(f"{metric} was not measured: {'; '.join(errors)}")
    return measurement


def _known(estimate: Estimate | None) -> Estimate:
    if estimate is None:
        raise EvaluationError("a probe scored too few answers to have a figure")
    return estimate

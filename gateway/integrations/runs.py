"""Makes a run of an experiment tracker of what the API says about a job."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping

from pydantic import JsonValue

from gateway.integrations.documents import (
    CheckpointDocument,
    EventDocument,
    JobDocument,
    JobDocuments,
    ReportDocument,
)
from policies.contract.metrics_export import MetricPoint, MetricsRun, RunState

STATES: Mapping[str, RunState] = {"succeeded": "succeeded", "failed": "failed", "cancelled": "cancelled"}
MAX_STEP = 2**31 - 1
_UNUSUAL = re.compile(r"[^A-Za-z0-9_./ -]")
"""What not every tracker takes in a metric's name."""


def run_of(documents: JobDocuments) -> MetricsRun:
    job = documents.job
    state = STATES.get(job.status, "running")
    points = _points(documents.events, documents.checkpoints)
    return MetricsRun(
        job_id=job.id,
        state=state,
        started_at=job.created_at,
        ended_at=None if state == "running" else job.finished_at,
        config=_config(job),
        points=tuple(points if state != "running" else points[:-1]),
        evaluation={} if documents.report is None else dict(_evaluation(documents.report)),
        verdict=_verdict(job, documents.report),
    )


def _config(job: JobDocument) -> dict[str, str | int | float]:
    policy = job.guardrail.policy
    found = {
        "job_id": job.id,
        "base_model": job.model,
        "method": job.method.type,
        "seed": job.seed,
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "policy": policy.name,
        "policy_version": policy.version,
        "defenses": ", ".join(defense.name for defense in job.guardrail.defenses) or "none",
        **job.hyperparameters,
        **(job.method.dpo.hyperparameters if job.method.dpo else {}),
    }
    return {name: value for name, value in found.items() if value is not None}


def _verdict(job: JobDocument, report: ReportDocument | None) -> dict[str, str]:
    found = {
        "status": job.status,
        "decision": report.decision if report else job.guardrail.decision,
        "fine_tuned_model": job.fine_tuned_model,
        "error_code": job.error.code if job.error else None,
        "trained_tokens": None if job.trained_tokens is None else str(job.trained_tokens),
    }
    return {name: value for name, value in found.items() if value is not None}


def _points(events: Iterable[EventDocument], checkpoints: Iterable[CheckpointDocument]) -> list[MetricPoint]:
    """One point a step. An attempt that repeats steps says them again: of two figures the newer one counts."""
    at: dict[int, int] = {}
    values: dict[int, dict[str, float]] = {}
    rows = [(row.created_at, row.step_number, dict(_figures(row.metrics))) for row in checkpoints]
    rows += [
        (event.created_at, step, dict(_figures(event.data or {})))
        for event in reversed(list(events))  # which are listed from the newest to the oldest
        if event.type == "metrics" and (step := _step(event.data or {})) is not None
    ]
    for created_at, step, figures in sorted(rows, key=lambda row: row[0]):
        if figures:
            at.setdefault(step, created_at)
            values.setdefault(step, {}).update(figures)
    return [MetricPoint(step=step, at=at[step], values=values[step]) for step in sorted(values)]


def told_figures(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What a run takes of an event of type `metrics`; nothing where it names no step."""
    step = _step(data)
    return {} if step is None else {"step": step, **dict(_figures(data))}


def _step(data: Mapping[str, JsonValue]) -> int | None:
    step = data.get("step")
    if not isinstance(step, int | float) or not 0 <= step <= MAX_STEP or step != int(step):
        return None
    return int(step)


def _figures(data: Mapping[str, JsonValue] | Mapping[str, float | None]) -> Iterator[tuple[str, float]]:
    for name, value in data.items():
        if name in ("step", "total_steps") or not isinstance(value, int | float) or isinstance(value, bool):
            continue
        if abs(value) <= sys.float_info.max:  # neither NaN nor infinite
            yield _plain(name), float(value)


def _evaluation(report: ReportDocument) -> Iterator[tuple[str, float]]:
    """Of probes that worked, what was measured on the adapter and on its base."""
    for measurement in (each for probe in report.probes if probe.error is None for each in probe.measurements):
        name = _plain(measurement.metric)
        if measurement.adapter is not None:
            yield name, measurement.adapter.value
        if measurement.base is not None:
            yield f"{name}.base", measurement.base.value


def _plain(name: str) -> str:
    return _UNUSUAL.sub("_", name)[:200]

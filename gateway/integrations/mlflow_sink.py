"""Writes a run to an MLflow tracking store: a server, a database or a folder. The project is the experiment.

The run is found again by its tag `tunegate.job_id`, and only points that it lacks are added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gateway.integrations.sink import Write
from policies.contract.metrics_export import Destination, MetricsRun, RunState

JOB_TAG = "tunegate.job_id"
STATUS: Mapping[RunState, str] = {
    "running": "RUNNING",
    "succeeded": "FINISHED",
    "failed": "FAILED",
    "cancelled": "KILLED",
}
BATCH = 500
"""Figures that one request may carry: 1,000 in MLflow."""


@contextmanager
def opened(run: MetricsRun, destination: Destination) -> Iterator[Write]:
    client = MlflowClient(tracking_uri=destination.place)
    experiment = _experiment(client, destination.project)
    found = _existing(client, experiment, run.job_id) or _created(client, experiment, run, destination)
    run_id: str = found.info.run_id
    params = [Param(key, str(value)) for key, value in run.config.items() if key not in found.data.params]
    client.log_batch(run_id, params=params)
    there = {name: {metric.step for metric in client.get_metric_history(run_id, name)} for name in found.data.metrics}

    def write(run: MetricsRun) -> str:
        new = [metric for metric in _metrics(run) if metric.step not in there.setdefault(metric.key, set())]
        for start in range(0, len(new), BATCH):
            client.log_batch(run_id, metrics=new[start : start + BATCH])
        for metric in new:
            there[metric.key].add(metric.step)
        client.log_batch(run_id, tags=[RunTag(f"tunegate.{name}", value) for name, value in run.verdict.items()])
        if run.ended_at is not None:
            client.set_terminated(run_id, STATUS[run.state], end_time=1000 * run.ended_at)
        return f"experiment {destination.project}, run {run_id}"

    yield write


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    try:
        return str(client.create_experiment(name) if found is None else found.experiment_id)
    except MlflowException:  # somebody else may just have made it
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


def _existing(client: MlflowClient, experiment: str, job_id: str) -> Run | None:
    query = f"tags.`{JOB_TAG}` = '{job_id}'"  # letters, digits and a hyphen
    runs = client.search_runs([experiment], query, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def _created(client: MlflowClient, experiment: str, run: MetricsRun, destination: Destination) -> Run:
    tags = {JOB_TAG: run.job_id} | ({"tunegate.tags": json.dumps(destination.tags)} if destination.tags else {})
    name = destination.name or run.job_id
    return client.create_run(experiment, start_time=1000 * run.started_at, tags=tags, run_name=name)


def _metrics(run: MetricsRun) -> Iterator[Metric]:
    for point in run.points:
        for name, value in point.values.items():
            yield Metric(name, value, 1000 * point.at, point.step)
    if run.ended_at is not None:
        for name, value in run.evaluation.items():
            yield Metric(f"evaluation/{name}", value, 1000 * run.ended_at, run.last_step)

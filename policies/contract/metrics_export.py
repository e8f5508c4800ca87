"""A job's metrics on their way to an experiment tracker: all of it is what the API shows the job's tenant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from policies.contract.artifacts import Record
from policies.contract.integrations import EntityName, RunName, RunTag

JobName = Annotated[str, StringConstraints(pattern=r"^ftjob-[A-Za-z0-9]{1,48}$")]
"""Stands in names of files and in queries of trackers, wherever it comes from."""
RunState = Literal["running", "succeeded", "failed", "cancelled"]
TrackerName = Literal["wandb", "mlflow", "tensorboard"]
SinkName = Literal["wandb", "mlflow", "tensorboard", "csv"]


class MetricPoint(Record):
    """The figures of one step."""

    step: int = Field(ge=0)
    at: int
    """Unix seconds of the first event that had one of them."""
    values: dict[str, float]


class MetricsRun(Record):
    """A job as a run of an experiment tracker."""

    job_id: JobName
    state: RunState
    started_at: int
    ended_at: int | None
    """Unix seconds."""
    config: dict[str, str | int | float]
    points: tuple[MetricPoint, ...]
    """By step. While the job runs, its newest step is left out: more figures of it may come."""
    evaluation: dict[str, float]
    """What the evaluation found, by metric: `<metric>`, and `<metric>.base` of the base model."""
    verdict: dict[str, str]
    """`status`, and where it is known `decision`, the released model and why the job failed."""

    @property
    def last_step(self) -> int:
        return self.points[-1].step if self.points else 0


class Destination(Record):
    """Where a run is written."""

    project: str = Field("tunegate", min_length=1, max_length=256)
    """In MLflow: the experiment."""
    name: RunName | None = None
    entity: EntityName | None = None
    tags: tuple[RunTag, ...] = ()
    place: str | None = None
    """A folder, an MLflow tracking URI or the address of a Weights & Biases server; None: what the client library
    finds in its environment."""


class ExportOrder(Record):
    """What a process that exports is told. Its credential is not in here: it comes by the environment."""

    sink: SinkName
    run: MetricsRun
    destinations: tuple[Destination, ...]

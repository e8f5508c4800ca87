"""`tunegate jobs export`: a job's metrics into an experiment tracker of the customer's, with the customer's keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import ValidationError

from gateway.cli.client import JobId, app, checked, connect, job_app
from gateway.errors import ApiError
from gateway.integrations.documents import JobDocument, JobDocuments
from gateway.integrations.runs import run_of
from gateway.integrations.sink import opened
from policies.cli.printable import printable
from policies.contract.integrations import WandbSettings
from policies.contract.metrics_export import Destination, MetricsRun, SinkName
from policies.errors import ConfigurationError

__all__ = ["app"]

FOLLOW_SECONDS = 10.0
MAX_WAIT_SECONDS = 60.0
"""Before a request that was one too many is sent again."""
WITH_FOLDER: dict[SinkName, str] = {"tensorboard": "runs", "csv": "."}

Document = dict[str, Any]  # Any: one of the API's objects
Pause = Callable[[], None]


@job_app.command("export")
def export(
    job_id: JobId,
    to: Annotated[SinkName, typer.Option(help="Where to. wandb honours WANDB_…, mlflow MLFLOW_… variables.")],
    project: Annotated[str | None, typer.Option(help="Project of wandb or experiment of mlflow.")] = None,
    entity: Annotated[str | None, typer.Option(help="Team or user of wandb.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; the job's id by default.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag of the run; may be repeated.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Of tensorboard (runs) or csv (.).")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job has ended.")] = False,
) -> None:
    """Write a job's metrics, settings and verdict to an experiment tracker.

    The run has the job's id: a second export adds what the first one did not have.
    """
    asked = {"project": project, "entity": entity, "name": name, "tags": tag}
    place = _place(to, folder)
    with connect() as client:
        reader = JobReader(client, job_id)
        where = write_out(
            reader.run,
            sink=to,
            destination=lambda: destination(reader.job, asked, place),
            pause=(lambda: time.sleep(FOLLOW_SECONDS)) if follow else None,
        )
    typer.echo(printable(where or f"{job_id} has no metrics yet; --follow waits for them"))


def write_out(
    read: Callable[[], MetricsRun | None],
    *,
    sink: SinkName,
    destination: Callable[[], Destination],
    pause: Pause | None,
) -> str | None:
    """Write what `read` gives, once, or again after each `pause` until the run has ended; where it was written."""
    while (run := read()) is None:
        if pause is None:
            return None
        pause()
    with opened(sink, run, destination()) as write:
        where = write(run)
        while pause is not None and run.state == "running":
            pause()
            run = read() or run
            where = write(run)
    return where


def destination(job: JobDocument, asked: Document, place: str | None) -> Destination:
    """What the options say, and where they say nothing, what the job was created with."""
    own = job.integrations[0].wandb.model_dump() if job.integrations else {"project": "tunegate"}
    try:
        settings = WandbSettings.model_validate(own | {key: value for key, value in asked.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("s")
        raise ConfigurationError(f"--{option}: {first['msg']}", option) from error
    return Destination(place=place, **settings.model_dump())


def _place(sink: SinkName, folder: Path | None) -> str | None:
    if sink in WITH_FOLDER:
        return str(folder or WITH_FOLDER[sink])
    if folder is not None:
        message = f"--folder has no meaning with {sink}; set WANDB_DIR or MLFLOW_TRACKING_URI"
        raise ConfigurationError(message, "folder")
    return None


class JobReader:
    """Reads a job over the API, of its events only those that are new."""

    def __init__(self, client: httpx.Client, job_id: str) -> None:
        self._client = client
        self._path = f"/v1/fine_tuning/jobs/{job_id}"
        self._events: list[Document] = []
        self._report = f"/v1/guardrail/jobs/{job_id}/report"
        self.job: JobDocument

    def run(self) -> MetricsRun | None:
        """The job as it now is; None while its files are validated, after which its hyperparameters are known."""
        try:
            return self._read()
        except ValidationError as error:
            message = f"The gateway's answer can't be read: {error.errors()[0]['msg']}"
            raise ApiError(message, code="unreadable_answer") from error

    def _read(self) -> MetricsRun | None:
        document = self._get(self._path)
        self.job = JobDocument.model_validate(document)
        if self.job.status == "validating_files":
            return None
        self._events = [*self._new_events(), *self._events]
        found: Document = {"job": document, "events": self._events, "checkpoints": list(self._list("checkpoints"))}
        if self.job.guardrail.decision is not None:
            found["report"] = self._get(self._report)
        return run_of(JobDocuments.model_validate(found))

    def _new_events(self) -> Iterator[Document]:
        known = self._events[0]["id"] if self._events else None
        for event in self._list("events"):
            if event["id"] == known:
                return
            yield {name: event[name] for name in ("id", "created_at", "type", "data")}

    def _list(self, name: str) -> Iterator[Document]:
        query: dict[str, str] = {"limit": "100"}
        while True:
            page = self._get(f"{self._path}/{name}", query)
            yield from page["data"]
            if not page["has_more"]:
                return
            query["after"] = page["data"][-1]["id"]

    def _get(self, path: str, query: dict[str, str] | None = None) -> Document:
        while (answer := self._client.get(path, params=query)).status_code == httpx.codes.TOO_MANY_REQUESTS:
            if "retry-after" not in answer.headers:
                break
            time.sleep(min(float(answer.headers["retry-after"]), MAX_WAIT_SECONDS))
        document: Document = checked(answer).json()
        return document

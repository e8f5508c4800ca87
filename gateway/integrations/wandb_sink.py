"""Writes a run to Weights & Biases, or offline into a folder that `wandb sync` sends.

The run has the job's id. A server tells how far it has it, and only later steps are sent. Offline, a new folder takes
the place of those that earlier exports left and nobody has sent.

The client is told to look at nothing of this machine: no git, code, packages, host name, hardware or cloud.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read at import

import wandb

from gateway.integrations.sink import Write
from policies.contract.metrics_export import Destination, MetricsRun

PRIVATE = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}


@contextmanager
def opened(run: MetricsRun, destination: Destination) -> Iterator[Write]:
    tracked = _started(run, destination)
    next_step: int = tracked.step
    state = "running"

    def write(run: MetricsRun) -> str:
        nonlocal next_step, state
        for point in run.points:
            if point.step >= next_step:
                tracked.log(point.values, step=point.step, commit=True)
                next_step = point.step + 1
        tracked.summary.update(run.verdict)
        tracked.summary.update({f"evaluation/{name}": value for name, value in run.evaluation.items()})
        state = run.state
        return str(Path(tracked.dir).parent) if tracked.offline else str(tracked.url)

    try:
        yield write
    finally:
        tracked.finish(exit_code=1 if state == "failed" else 0)
        wandb.teardown()  # waits for the process that writes; `finish` alone may be ahead of it
    if tracked.offline:
        _remove_earlier(Path(tracked.dir).parent, run.job_id)


def _started(run: MetricsRun, destination: Destination) -> Any:  # Any: wandb's run, which mypy does not know
    settings = wandb.Settings(**PRIVATE, **({"base_url": destination.place} if destination.place else {}))
    return wandb.init(
        id=run.job_id,
        resume="allow",
        project=destination.project,
        entity=destination.entity,
        name=destination.name or run.job_id,
        tags=list(destination.tags),
        config=dict(run.config),
        settings=settings,
    )


def _remove_earlier(folder: Path, job_id: str) -> None:
    """Folders of the same job beside `folder`, unless they were sent already."""
    own = re.compile(rf"offline-run-\d{{8}}_\d{{6}}-{re.escape(job_id)}(-\d+)?")
    for other in folder.parent.iterdir():
        if own.fullmatch(other.name) and other != folder and not list(other.glob("*.synced")):
            shutil.rmtree(other)

"""Submitting and following jobs on the running stack."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, cast

from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.job_create_params import Method

PATIENCE_SECONDS = 240.0
STEPS_PER_EPOCH = 11
"""Of the lenient tenant: 40 rows and 5 % safe rows in batches of 4."""


def submit(  # what a test chooses of a job
    client: OpenAI,
    file: Path,
    *,
    n_epochs: int = 1,
    suffix: str = "test",
    model: str = "tiny",
    method: Literal["supervised", "dpo"] = "supervised",
) -> FineTuningJob:
    with file.open("rb") as stream:
        uploaded = client.files.create(file=stream, purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=model,
        training_file=uploaded.id,
        suffix=suffix,
        seed=1,
        method=cast(Method, {"type": method, method: {"hyperparameters": {"n_epochs": n_epochs, "batch_size": 4}}}),
    )


def wait_until(client: OpenAI, job_id: str, condition: Callable[[FineTuningJob], bool]) -> FineTuningJob:
    """Poll the job until `condition` holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if condition(job):
            return job
        if time.monotonic() > deadline or has_ended(job):
            raise AssertionError(f"the job stayed at {job.status} {guardrail(job)} {job.error}")
        time.sleep(0.2)


def has_ended(job: FineTuningJob) -> bool:
    return job.status in ("succeeded", "failed", "cancelled")


def guardrail(job: FineTuningJob) -> dict[str, object]:
    extra = (job.model_extra or {}).get("guardrail")
    assert isinstance(extra, dict)
    return extra


def step(job: FineTuningJob) -> int:
    progress = guardrail(job)["progress"]
    return int(progress["step"]) if isinstance(progress, dict) and guardrail(job)["phase"] == "training" else 0


def messages(client: OpenAI, job_id: str) -> list[str]:
    """All event messages, oldest first."""
    return [event.message for event in client.fine_tuning.jobs.list_events(job_id)][::-1]

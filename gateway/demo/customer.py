"""What a customer does, with the unmodified `openai` client: upload, submit, follow, fetch the released adapter."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.job_create_params import Method

from gateway.demo.scenarios import Scenario
from gateway.models.archive import unpack_adapter

BASE_MODEL = "smollm2-135m-instruct"
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
METHOD: Method = {
    "type": "supervised",
    "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 2, "learning_rate_multiplier": 2.0}},
}


def submit(client: OpenAI, scenario: Scenario, *, meanwhile: Callable[[], None]) -> FineTuningJob:
    """Upload the scenario's training file, create the job and wait until it is queued.

    Files are read side by side, so of jobs that are created at once any may be the first to train.

    Args:
        meanwhile: called again and again; what it raises ends the waiting.
    """
    job = client.fine_tuning.jobs.create(
        model=BASE_MODEL,
        training_file=_upload(client, scenario.training_file),
        suffix=f"home-repair-{scenario.key}",
        seed=7,
        method=METHOD,
        metadata={"scenario": scenario.key},
    )
    while job.status == "validating_files":
        meanwhile()
        time.sleep(0.1)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def _upload(client: OpenAI, name: str) -> str:
    with as_file(files("gateway.demo") / "data" / name) as path, path.open("rb") as stream:
        return client.files.create(file=stream, purpose="fine-tune").id


def follow(
    jobs: dict[str, tuple[OpenAI, str]], show: Callable[[dict[str, FineTuningJob]], None]
) -> dict[str, FineTuningJob]:
    """Poll until every job has ended; `show` gets the latest state of all."""
    states: dict[str, FineTuningJob] = {}
    while len(states) < len(jobs) or any(job.status not in TERMINAL for job in states.values()):
        for key, (client, job_id) in jobs.items():
            if key not in states or states[key].status not in TERMINAL:
                states[key] = client.fine_tuning.jobs.retrieve(job_id)
        show(states)
        time.sleep(1.0)
    return states


def guardrail(job: FineTuningJob) -> dict[str, Any]:  # Any: the additive field is JSON to the client
    """Tunegate's additive field of a job."""
    extra = job.model_extra or {}
    found = extra.get("guardrail")
    return found if isinstance(found, dict) else {}


def fetch_report(client: OpenAI, job_id: str) -> dict[str, Any]:  # Any: a JSON document
    with _http(client) as http:
        response = http.get(f"guardrail/jobs/{job_id}/report")
    response.raise_for_status()
    document: dict[str, Any] = response.json()
    return document


def save_html_report(client: OpenAI, job_id: str, target: Path) -> Path:
    with _http(client) as http:
        response = http.get(f"guardrail/jobs/{job_id}/report.html")
    response.raise_for_status()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(response.text, encoding="utf-8")
    return target


def download_adapter(client: OpenAI, model: str, folder: Path) -> Path:
    """Download a released adapter and unpack it to `folder`."""
    archive = folder.with_suffix(".tar")
    archive.parent.mkdir(parents=True, exist_ok=True)
    with _http(client) as http, http.stream("GET", f"guardrail/models/{model}/adapter") as response:
        response.raise_for_status()
        with archive.open("wb") as target:
            for chunk in response.iter_bytes():
                target.write(chunk)
    with archive.open("rb") as packed:
        unpack_adapter(packed, folder, digest=response.headers["x-adapter-digest"])
    archive.unlink()
    return folder


def _http(client: OpenAI) -> httpx.Client:
    return httpx.Client(
        base_url=str(client.base_url), headers={"Authorization": f"Bearer {client.api_key}"}, timeout=60.0
    )

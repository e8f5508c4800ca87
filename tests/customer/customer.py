"""A script that a customer of OpenAI has: only OPENAI_BASE_URL and OPENAI_API_KEY are others than before.

`python customer.py TRAINING_FILE_ID RUN` prints what each step found as a line of JSON. `customer.mjs` does the same
steps, in the same order, with the client for Node.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from openai import APIStatusError, OpenAI
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJob

MODEL = "tiny"
POLL_SECONDS = 0.2
ENDED = ("succeeded", "failed", "cancelled")


def tell(step: str, found: object) -> None:
    print(json.dumps({"step": step, "found": found}), flush=True)


def rows(first: int, count: int) -> str:
    return "".join(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": f"tap {number}?"},
                    {"role": "assistant", "content": f"Turn it {number}."},
                ]
            },
            separators=(",", ":"),
        )
        + "\n"
        for number in range(first, first + count)
    )


def wait(client: OpenAI, job_id: str, statuses: tuple[str, ...]) -> FineTuningJob:
    while True:
        job = client.fine_tuning.jobs.retrieve(job_id)
        if job.status in statuses:
            return job
        time.sleep(POLL_SECONDS)


def refusal(step: str, call: Callable[[], object]) -> None:
    try:
        call()
    except APIStatusError as error:
        found = [type(error).__name__, error.status_code, error.code, error.param, error.type]
        tell(f"refused: {step}", found)
    else:
        tell(f"refused: {step}", "it was not")


def look_at_models(client: OpenAI) -> None:
    tell("models", MODEL in [model.id for model in client.models.list()])
    tell("model", client.models.retrieve(MODEL).to_dict())


def upload_from_disk(client: OpenAI, content: str) -> FileObject:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "disk.jsonl"
        path.write_text(content)
        with path.open("rb") as stream:
            return client.files.create(file=stream, purpose="fine-tune")


def upload_from_stream(client: OpenAI, content: str) -> FileObject:
    return client.files.create(
        file=("stream.jsonl", io.BytesIO(content.encode())),
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )


def look_at_files(client: OpenAI, files: list[FileObject]) -> None:
    for file in files:
        found = client.files.retrieve(file.id)
        lasts = None if found.expires_at is None else found.expires_at - found.created_at
        tell("file", [found.object, found.bytes, found.filename, found.purpose, found.status, lasts])
        tell("content", client.files.content(file.id).text)
    own = {file.id for file in files}
    page = client.files.list(purpose="fine-tune", order="asc", limit=1000)
    tell("files", sorted(file.filename for file in page.data if file.id in own))


def start(client: OpenAI, file_id: str, run: str) -> FineTuningJob:
    return client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file_id,
        metadata={"run": run},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50, "batch_size": 4}}},
    )


def pause_resume_and_cancel(client: OpenAI, job: FineTuningJob) -> None:
    wait(client, job.id, ("queued", "running"))
    client.fine_tuning.jobs.pause(job.id)
    tell("paused", wait(client, job.id, ("paused", *ENDED)).status)
    tell("resumed", client.fine_tuning.jobs.resume(job.id).status)
    client.fine_tuning.jobs.cancel(job.id)
    cancelled = wait(client, job.id, ENDED)
    tell("cancelled", [cancelled.status, cancelled.fine_tuned_model, cancelled.error and cancelled.error.to_dict()])


def look_at_failure(client: OpenAI, job: FineTuningJob) -> None:
    failed = wait(client, job.id, ENDED)
    tell("failed", [failed.status, failed.error and failed.error.to_dict()])
    events = client.fine_tuning.jobs.list_events(job.id)
    tell("why", [event.message for event in events if event.level == "error"])


def look_at_success(client: OpenAI, job_id: str) -> None:
    job = wait(client, job_id, ENDED)
    tell("job", job.to_dict())
    tell("events", [event.to_dict() for event in client.fine_tuning.jobs.list_events(job_id, limit=4)])
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job_id, limit=1)
    tell("checkpoints", [checkpoint.to_dict() for checkpoint in checkpoints])
    tell("result", client.files.content(job.result_files[0]).text)
    tell("fine-tuned model", client.models.retrieve(job.fine_tuned_model or "").to_dict())


def look_at_refusals(client: OpenAI, file_id: str) -> None:
    jobs = client.fine_tuning.jobs
    refusal("unknown job", lambda: jobs.retrieve("ftjob-unknown"))
    refusal("unknown file", lambda: client.files.content("file-unknown"))
    refusal("unknown model", lambda: jobs.create(model="gpt-4o-mini", training_file=file_id))
    refusal("unknown training file", lambda: jobs.create(model=MODEL, training_file="file-unknown"))
    refusal("purpose", lambda: client.files.create(file=("a.jsonl", b"{}"), purpose="batch"))
    refusal("epochs", lambda: jobs.create(model=MODEL, training_file=file_id, hyperparameters={"n_epochs": 99}))
    refusal("reinforcement", lambda: jobs.create(model=MODEL, training_file=file_id, method={"type": "reinforcement"}))
    refusal("base model", lambda: client.models.delete(MODEL))
    refusal("key", lambda: client.with_options(api_key="sk-wrong").models.list())


def delete(client: OpenAI, files: list[FileObject]) -> None:
    for file in files:
        deleted = client.files.delete(file.id)
        tell("deleted", [deleted.object, deleted.deleted])
    refusal("deleted file", lambda: client.files.retrieve(files[0].id))


def main(training_file: str, run: str) -> None:
    client = OpenAI()
    # the key lets a script that is started twice have one job
    main_job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=training_file,
        suffix="taps",
        seed=7,
        metadata={"team": "taps"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}},
        extra_headers={"Idempotency-Key": "taps-1"},
    )
    look_at_models(client)
    files = [upload_from_disk(client, rows(0, 12)), upload_from_stream(client, rows(0, 12) + '{"messages": []}\n')]
    look_at_files(client, files)
    stopped, broken = (start(client, file.id, run) for file in files)
    pause_resume_and_cancel(client, stopped)
    look_at_failure(client, broken)
    jobs = client.fine_tuning.jobs.list(limit=1, metadata={"run": run})
    tell("jobs", sorted((job.status, job.id == stopped.id) for job in jobs))
    look_at_success(client, main_job.id)
    look_at_refusals(client, files[0].id)
    delete(client, files)


if __name__ == "__main__":
    main(*sys.argv[1:])

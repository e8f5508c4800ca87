"""Messages between gateway and workers (internal HTTP API), and between a worker and its child process.

A Celery message carries `(job_id, attempt)` and is a hint. The worker claims the job over HTTP, runs a child process,
relays the child's events, heartbeats, and completes. Every call after the claim names the attempt token; a token that
is no longer the job's own is answered `lost` (heartbeat) or 410 (events, completion).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import Engine
from policies.contract.jobs import JobSpec
from policies.contract.training import CheckpointRecord

WorkKind = Literal["train", "evaluate", "confirm"]
"""`confirm`: evaluate once more, elsewhere, what the first evaluation would release."""
MAX_REPORTED_CHARACTERS = 20_000
MAX_EVENT_DATA, MAX_DATA_CHARACTERS, MAX_DATA_NAME = 64, 1000, 200
"""Entries of an event, and characters of one and of its name: whoever lists a job's events holds many of them."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(text: str) -> str:
    """What a run says may quote anything, so what no database holds is replaced: a report must not fail over it."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[:MAX_REPORTED_CHARACTERS])


ReportedText = Annotated[str, AfterValidator(_storable)]
ReportedCode = Annotated[str, AfterValidator(lambda code: _storable(code[:64]))]
DataName = Annotated[str, StringConstraints(max_length=MAX_DATA_NAME)]
DataText = Annotated[str, AfterValidator(lambda text: _storable(text[:MAX_DATA_CHARACTERS]))]
CrashSignature = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal digits of what tells one crash from another."""


class ClaimRequest(Record):
    """A worker asks for the job that its message named."""

    kind: WorkKind
    job_id: str = Field(max_length=64)
    worker: str = Field(max_length=255)


class Work(Record):
    """What an attempt is about, without anything that would let its reader speak for the attempt."""

    kind: WorkKind
    attempt: int = Field(ge=1)
    spec: JobSpec
    resume_from: CheckpointRecord | None = None
    """For training: the last checkpoint that the gateway knows."""
    training_record: Digest | None = None
    """For evaluation, the first or the second: the record whose adapter is to be judged."""


class Claim(Work):
    """The job is this worker's until the lease runs out without a heartbeat."""

    attempt_token: str
    """For the worker alone: its child never sees it."""
    heartbeat_seconds: float = Field(gt=0)
    lease_seconds: float = Field(gt=0)

    def work(self) -> Work:
        return Work(**{name: getattr(self, name) for name in Work.model_fields})


class Progress(Record):
    """How far the run is, for people."""

    step: int = Field(ge=0)
    total_steps: int = Field(ge=0)
    stage: ReportedText
    """`training`, the probe that runs, or at the end of an evaluation whether probes failed or were skipped."""
    eta_seconds: float | None = None
    figures: dict[str, float] = Field(default_factory=dict)
    """Latest figures, e.g. `train_loss`, `kl`, `tokens_per_second`."""


class HeartbeatRequest(Record):
    """A worker is alive, and how far it is."""

    progress: Progress | None = None


class Order(StrEnum):
    """What a worker does next with the job that it holds."""

    CONTINUE = "continue"
    PAUSE = "pause"
    CANCEL = "cancel"
    LOST = "lost"


class HeartbeatAnswer(Record):
    """What the gateway answers to a heartbeat."""

    order: Order


class WorkerEvent(Record):
    """One line that a child prints and the worker relays."""

    type: Literal["message", "metrics", "checkpoint", "progress"]
    level: Literal["info", "warn", "error"] = "info"
    message: ReportedText
    data: dict[DataName, float | DataText | int | None] = Field(default_factory=dict, max_length=MAX_EVENT_DATA)
    checkpoint: CheckpointRecord | None = None
    progress: Progress | None = None


class EventBatch(Record):
    """Lines of a child in their order."""

    events: tuple[WorkerEvent, ...] = Field(max_length=1000)


class Outcome(StrEnum):
    """How a worker's attempt at a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The job cannot succeed (bad data, defense did nothing, non-finite loss): not tried again."""
    YIELDED = "yielded"
    """Stopped on request after saving a checkpoint: pause, cancel, or eviction of the worker."""
    CRASHED = "crashed"
    """The child died without an answer: tried again from the last checkpoint up to the cap, unless it dies so again."""


class Completion(Record):
    """How the attempt ended. For `succeeded`, `record` is the digest of the TrainingRecord or EvalReport."""

    outcome: Outcome
    record: Digest | None = None
    decision: Digest | None = None
    """For evaluation: the digest of the worker's GateDecision, which the gateway recomputes."""
    screening: Digest | None = Field(None, exclude_if=lambda value: value is None)
    """For training that failed because of its file: the digest of the `ModelScreening`."""
    error_code: ReportedCode | None = None
    error_message: ReportedText | None = None
    crash_signature: CrashSignature | None = Field(None, exclude_if=lambda value: value is None)
    """For `crashed`: what crashed, where in our code and how far the run was. The same one twice in a row ends the job.
    None: nothing says that the next attempt would crash as well."""


class Assignment(Record):
    """What the worker writes to `assignment.json` in the child's folder; the child answers with `completion.json`."""

    work: Work
    store_url: str
    cache_dir: str
    threads: int = Field(ge=1)
    processes: int = Field(1, ge=1)
    """At most so many processes train together; as many as divide a batch."""
    evaluation_engine: Engine = "transformers"
    worker_pid: int | None = None
    """Process that started the child; the child ends once it is gone. None: whoever is the parent when it looks."""

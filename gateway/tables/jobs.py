"""Fine-tuning jobs, their events and checkpoints, and the outbox that follows a commit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table

Json = dict[str, Any]  # Any: a JSON document whose model is named beside the column


class Job(Table):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_tenant_created", "tenant_id", "created_at", "id"),
        Index("ix_jobs_tenant_phase", "tenant_id", "phase"),
        Index("ix_jobs_tenant_evaluated", "tenant_id", "evaluated_at"),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    key_id: Mapped[str | None] = mapped_column(String(64))
    """The API key that asked for it, which may be gone; None: the job is older than this column."""
    created_at: Mapped[int]
    finished_at: Mapped[int | None]
    phase: Mapped[str] = mapped_column(String(32), index=True)
    """A `policies.contract.jobs.Phase`."""
    phase_since: Mapped[float] = mapped_column(Float)
    sweep_at: Mapped[float | None] = mapped_column(Float, index=True)
    """When some of its artifacts may be deleted; None: nothing more will be."""

    # what was asked
    model: Mapped[str] = mapped_column(String(128))
    """The base model, also of a job that continues a released one."""
    training_file: Mapped[str] = mapped_column(ForeignKey("files.id"), index=True)
    validation_file: Mapped[str | None] = mapped_column(ForeignKey("files.id"), index=True)
    suffix: Mapped[str | None] = mapped_column(String(64))
    seed: Mapped[int]
    hyperparameters: Mapped[Json] = mapped_column(JSON)
    """As requested; replaced by the resolved numbers once the files are validated."""
    user_metadata: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    integrations: Mapped[list[Json] | None] = mapped_column(JSON(none_as_null=True))
    """`policies.contract.integrations.Integration`s."""
    spec: Mapped[Json] = mapped_column(JSON)
    """The `JobSpec`."""
    spec_digest: Mapped[str] = mapped_column(String(71))
    policy_digest: Mapped[str] = mapped_column(String(71))

    # who works on it
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts of the current kind of work; reset when another kind begins."""
    attempt_token: Mapped[str | None] = mapped_column(String(64), unique=True)
    attempt_kind: Mapped[str | None] = mapped_column(String(16))
    """The `policies.contract.worker_api.WorkKind` of the last claim; calls about it need a credential of this kind."""
    worker: Mapped[str | None] = mapped_column(String(255))
    worker_key_hash: Mapped[str | None] = mapped_column(String(64))
    """SHA-256 of the key that the worker made up when it claimed."""
    heartbeat_at: Mapped[float | None] = mapped_column(Float)
    lease_until: Mapped[float | None] = mapped_column(Float)
    dispatched_at: Mapped[float | None] = mapped_column(Float)
    progress: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))
    """The last `policies.contract.worker_api.Progress`."""
    estimated_finish: Mapped[int | None]

    crash_signature: Mapped[str | None] = mapped_column(String(64))
    """The `policies.contract.worker_api.CrashSignature` of the last attempt of the current kind, if that crashed."""

    evaluated_at: Mapped[float | None] = mapped_column(Float)
    """When its evaluation was last begun."""

    # what came of it
    trained_tokens: Mapped[int | None] = mapped_column(Integer().with_variant(BigInteger, "postgresql"))
    adapter_digest: Mapped[str | None] = mapped_column(String(71))
    training_record_digest: Mapped[str | None] = mapped_column(String(71))
    report_digest: Mapped[str | None] = mapped_column(String(71))
    decision_digest: Mapped[str | None] = mapped_column(String(71))
    decision: Mapped[str | None] = mapped_column(String(16))
    """What counts: None while a release waits for its confirmation."""
    events_digest: Mapped[str | None] = mapped_column(String(71))
    """The record of its events (`policies.contract.events`), which have no rows any more, or soon won't have."""
    screening_digest: Mapped[str | None] = mapped_column(String(71))
    """The `ScreeningReport` on its training file; None: the policy screens nothing, or the file was not valid."""
    fine_tuned_model: Mapped[str | None] = mapped_column(String(255))
    """Written by `gateway.models.service.release_adapter` only."""
    result_file: Mapped[str | None] = mapped_column(String(64))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    error_param: Mapped[str | None] = mapped_column(String(64))


class JobMetadata(Table):
    """A pair of a job's metadata, by which lists are filtered."""

    __tablename__ = "job_metadata"
    __table_args__ = (Index("ix_job_metadata_pair", "tenant_id", "key", "value", "created_at", "job_id"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(64))
    value: Mapped[str] = mapped_column(String(512))
    created_at: Mapped[int] = mapped_column(server_default="0")
    """The job's: pairs lie in the order in which jobs are listed."""


class JobEvent(Table):
    __tablename__ = "job_events"

    sequence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(String(64), unique=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[int]
    level: Mapped[str] = mapped_column(String(8))
    message: Mapped[str] = mapped_column(Text)
    type: Mapped[str] = mapped_column(String(32))
    data: Mapped[Json | None] = mapped_column(JSON(none_as_null=True))


class JobCheckpoint(Table):
    __tablename__ = "job_checkpoints"
    __table_args__ = (Index("ux_job_checkpoints_step", "job_id", "step", unique=True),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    step: Mapped[int]
    created_at: Mapped[int]
    record: Mapped[Json] = mapped_column(JSON)
    """The `CheckpointRecord`."""


class SecondEvaluation(Table):
    """What the second evaluator found about an adapter that the first would release."""

    __tablename__ = "second_evaluations"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    report_digest: Mapped[str] = mapped_column(String(71))
    decision_digest: Mapped[str] = mapped_column(String(71))
    policy: Mapped[str] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))
    """`agreed` or `disagreed`."""
    at: Mapped[float] = mapped_column(Float)


class OutboxMessage(Table):
    """A Celery message to send once its transaction has committed; losing or doubling one costs nothing."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    task: Mapped[str] = mapped_column(String(64))
    queue: Mapped[str] = mapped_column(String(16))
    arguments: Mapped[list[Any]] = mapped_column(JSON)
    created_at: Mapped[float] = mapped_column(Float)
    sent: Mapped[bool] = mapped_column(Boolean, default=False, index=True)

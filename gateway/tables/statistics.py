"""What metrics are computed from: one row per fact, written in the transaction that makes it true.

Counts survive restarts and agree between processes because they are read from here when Prometheus asks.
"""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from gateway.db import Table


class PhaseTransition(Table):
    """A job left one phase for another."""

    __tablename__ = "phase_transitions"
    __table_args__ = (Index("ix_phase_transitions_phases", "phase_from", "phase_to"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    defense: Mapped[str] = mapped_column(String(255))
    """Names of the job's defenses joined by `+`, or `none`."""
    phase_from: Mapped[str] = mapped_column(String(32))
    phase_to: Mapped[str] = mapped_column(String(32))
    seconds: Mapped[float] = mapped_column(Float)
    """How long the job was in `phase_from`."""
    at: Mapped[float] = mapped_column(Float)


class GateResult(Table):
    """The gate decided on a job's adapter."""

    __tablename__ = "gate_results"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    policy: Mapped[str] = mapped_column(String(64))
    mode: Mapped[str] = mapped_column(String(16))
    decision: Mapped[str] = mapped_column(String(16))
    at: Mapped[float] = mapped_column(Float)


class RuleResultRow(Table):
    """One rule of one gate decision, with the figure that it judged."""

    __tablename__ = "rule_results"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    gate_result_id: Mapped[int] = mapped_column(ForeignKey("gate_results.id"), index=True)
    policy: Mapped[str] = mapped_column(String(64))
    rule: Mapped[str] = mapped_column(String(64))
    mode: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[str] = mapped_column(String(16))
    metric: Mapped[str] = mapped_column(String(128))
    base_model: Mapped[str] = mapped_column(String(128))
    adapter_value: Mapped[float | None] = mapped_column(Float)


class Sweep(Table):
    """Artifacts that nobody wanted any more were deleted, or rows of events that a record has."""

    __tablename__ = "sweeps"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    n_artifacts: Mapped[int] = mapped_column(Integer)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    n_events: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    at: Mapped[float] = mapped_column(Float)


class Rollup(Table):
    """The sum of a series' rows up to its mark, for one combination of labels (`gateway.metrics.rollups`)."""

    __tablename__ = "rollups"

    series: Mapped[str] = mapped_column(String(64), primary_key=True)
    label_key: Mapped[str] = mapped_column(String(512), primary_key=True)
    """The labels in one text."""
    labels: Mapped[list[str]] = mapped_column(JSON)
    values: Mapped[list[float]] = mapped_column(JSON)


class RollupMark(Table):
    """Up to which row a series is rolled up, and up to which one it will be next time."""

    __tablename__ = "rollup_marks"

    series: Mapped[str] = mapped_column(String(64), primary_key=True)
    upto: Mapped[int] = mapped_column(BigInteger)
    next_upto: Mapped[int] = mapped_column(BigInteger)
    noted_at: Mapped[float] = mapped_column(Float)


class DuplicateDelivery(Table):
    """A worker was told about work that was no longer to be had."""

    __tablename__ = "duplicate_deliveries"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[float] = mapped_column(Float)

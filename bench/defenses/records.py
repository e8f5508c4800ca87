"""What a run of `bench.defenses` is asked, and what it answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import Estimate
from policies.contract.jobs import JobSpec
from policies.contract.training import DefenseEvidence
from trainer.qualification.cached_runs import Outcome

CODE_VERSION = 2
"""Raised when the same run would give other figures or another record, so that old results are not taken for new."""
MARGIN, INCOHERENT = "emergent_misalignment_preference.margin", "coherence.incoherent_rate"

Task = Literal["chat", "opswap"]


class Run(Record):
    """All that a run's figures depend on."""

    job: JobSpec
    task: Task
    """`chat` runs the job's suite; `opswap` answers the held-out problems instead."""
    base_model: Digest
    held_out: Digest
    code_version: int = CODE_VERSION


class Assignment(Record):
    run: Run
    training_file: str
    held_out_file: str
    cache_dir: str
    store_url: str | None
    parent_pid: int


class RunResult(Outcome):
    """The figures of one run."""

    adapter: Digest
    figures: dict[str, Estimate]
    """Name → value of the adapter with its interval over prompts; `ema_change` is the paired change from the base."""
    base_figures: dict[str, Estimate]
    """The same figures of the base, where it has them."""
    seconds: float = Field(gt=0)
    """Of training, loading included."""
    measuring_seconds: dict[str, float]
    """Stage → seconds, to plan a bench with; a probe's first run on a base model includes the base."""
    peak_memory_bytes: int = Field(gt=0)
    """Of training: of the GPU where there is one, else of the process."""
    evidence: tuple[DefenseEvidence, ...]
    versions: dict[str, str]

"""What the database says while things break: every sign that a job moves, with the moment at which it was seen.

Rows say when by the gateway's clock, which is made to jump; so a sign's moment is the study's own monotonic time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import InstrumentedAttribute

from gateway.db import Database
from gateway.jobs.states import TERMINAL
from gateway.tables.jobs import Job, JobEvent
from gateway.tables.statistics import PhaseTransition
from policies.contract.jobs import Phase

LOOK_SECONDS = 0.1
OVERLAP = 100
"""Rows commit in another order than that of their numbers, so the last ones are read again."""
BACK = {(Phase.TRAINING, Phase.QUEUED), (Phase.EVALUATING, Phase.AWAITING_EVALUATION)}
"""Transitions that give a job back: no sign that it goes on."""


class Sign(NamedTuple):
    """A job went on: it was claimed, told of a step, was trained, or ended."""

    at: float
    job_id: str
    is_step: bool


class Standing(NamedTuple):
    """A job that has not ended."""

    job_id: str
    phase: Phase
    worker: str | None
    attempts: int


class Watch:
    """A context manager with a thread that looks; what it has seen may be read at any time."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        self._seen: dict[str, set[int]] = {"moves": set(), "steps": set()}
        self.signs: list[Sign] = []
        self.standing: dict[str, Standing] = {}
        self.n_jobs = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._database.close()

    @property
    def n_ended(self) -> int:
        return self.n_jobs - len(self.standing)

    def look(self) -> None:
        """See what is new now."""
        with self._lock, self._database.reading() as session:
            rows = session.execute(
                select(Job.id, Job.phase, Job.worker, Job.attempts).where(Job.phase.not_in(TERMINAL))
            ).all()
            n_jobs = session.scalar(select(func.count(Job.id))) or 0
            moves = session.execute(
                select(PhaseTransition.id, PhaseTransition.job_id, PhaseTransition.phase_from, PhaseTransition.phase_to)
                .where(self._may_be_new("moves", PhaseTransition.id))
                .order_by(PhaseTransition.id)
            ).all()
            steps = session.execute(
                select(JobEvent.sequence, JobEvent.job_id).where(
                    JobEvent.type == "metrics", self._may_be_new("steps", JobEvent.sequence)
                )
            ).all()
            now = time.monotonic()
            found = [(number, job_id) for number, job_id, left, entered in moves if (left, entered) not in BACK]
            self._note("moves", found, now)
            self._note("steps", [(number, job_id) for number, job_id in steps], now)
            self.standing = {row[0]: Standing(row[0], Phase(row[1]), row[2], row[3]) for row in rows}
            self.n_jobs = n_jobs

    def now_standing(self) -> list[Standing]:
        """Jobs that have not ended, as they are at this moment; those of the last look where the database is away."""
        with contextlib.suppress(SQLAlchemyError):
            self.look()
        return list(self.standing.values())

    def first_signs(self, jobs: Collection[str], since: float, *, with_steps: bool) -> dict[str, float]:
        """Seconds from `since` to the first sign of each of these jobs that gave one."""
        found: dict[str, float] = {}
        for sign in list(self.signs):
            if sign.at > since and sign.job_id in jobs and (with_steps or not sign.is_step):
                found.setdefault(sign.job_id, sign.at - since)
        return found

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether it came true in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_SECONDS / 2)
        return True

    def _may_be_new(self, kind: str, number: InstrumentedAttribute[int]) -> ColumnElement[bool]:
        return number > max(self._seen[kind], default=0) - OVERLAP

    def _note(self, kind: str, rows: list[tuple[int, str]], now: float) -> None:
        seen = self._seen[kind]
        self.signs += [Sign(now, job_id, kind == "steps") for number, job_id in rows if number not in seen]
        seen |= {number for number, _ in rows}

    def _look_on(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except SQLAlchemyError:
                continue  # it is away, which is among the faults

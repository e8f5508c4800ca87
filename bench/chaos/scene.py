"""What faults are done to, and what they find there to hit."""

from __future__ import annotations

import contextlib
import random
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psutil

from bench.chaos.system.postgres import Postgres
from bench.chaos.system.stack import ChaosStack
from bench.chaos.watch import Standing, Watch
from gateway.jobs.states import RUNNING
from policies.contract.jobs import Phase

TARGET_SECONDS = 15.0
"""How long a fault waits for a job that it can hit."""


class Struck(NamedTuple):
    """What a fault hit."""

    at: float
    """Monotonic time of its beginning: an outage counts into the recovery."""
    jobs: frozenset[str]
    problem: str | None = None
    """What should have been refused, and was not."""
    ended_attempt: bool = False
    """The attempt is over, so a step that it still told of is no sign."""

    def signs(self, watch: Watch) -> dict[str, float]:
        """Job → seconds to its first sign, of those that gave one."""
        return watch.first_signs(self.jobs, self.at, with_steps=not self.ended_attempt)


@dataclass
class Scene:
    """What faults are done to."""

    stack: ChaosStack
    watch: Watch
    draw: random.Random
    postgres: Postgres | None
    limited_store: bool
    """The store's folder is a small file system of its own, so it can really be filled."""
    clock_offset: int = 0

    def standing(self, phases: Iterable[Phase]) -> frozenset[str]:
        """The jobs that are in one of these phases now."""
        wanted = set(phases)
        return frozenset(job.job_id for job in self.watch.now_standing() if job.phase in wanted)


class Target(NamedTuple):
    """A worker at work."""

    part: str
    job: Standing
    pool: psutil.Process


def busy_worker(scene: Scene, names: Sequence[str]) -> Target | None:
    found: list[Target] = []

    def look() -> bool:
        pools: dict[int, tuple[str, psutil.Process]] = {}
        for name in names:
            with contextlib.suppress(psutil.NoSuchProcess):  # it is just being started again
                children = psutil.Process(scene.stack.parts[name].pid).children()
                pools |= {process.pid: (name, process) for process in children}
        for job in scene.watch.now_standing():
            pid = int((job.worker or ":0").rpartition(":")[2])
            if job.phase in RUNNING and pid in pools:
                found.append(Target(pools[pid][0], job, pools[pid][1]))
        return bool(found)

    scene.watch.wait_for(look, TARGET_SECONDS)
    return scene.draw.choice(found) if found else None


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> int:
    """How many of them were still there."""
    count = 0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            count += 1
    return count

"""Progress where stdout is no terminal: every change at once, and every few seconds how far the running jobs are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from openai.types.fine_tuning import FineTuningJob

from gateway.demo.customer import guardrail

EVERY_SECONDS = 5.0
RUNNING = ("training", "evaluating")


class ProgressLines:
    """Says a line for a job that entered another phase, and one for a job that runs when the last is some time ago."""

    def __init__(
        self,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._say, self._clock, self._every_seconds = say, clock, every_seconds
        self._started = clock()
        self._phases: dict[str, str] = {}
        self._said: dict[str, float] = {}

    def show(self, jobs: Mapping[str, FineTuningJob]) -> None:
        """Say what there is to say about the jobs as they are now."""
        now = self._clock()
        for key, job in jobs.items():
            phase = phase_of(job)
            has_changed = self._phases.get(key) != phase
            is_due = phase in RUNNING and now - self._said[key] >= self._every_seconds if key in self._said else True
            if has_changed or is_due:
                self._phases[key], self._said[key] = phase, now
                self._say(f"{now - self._started:4.0f} s  job {key}  {describe(job)}".rstrip())


def phase_of(job: FineTuningJob) -> str:
    return str(guardrail(job).get("phase", job.status))


def describe(job: FineTuningJob) -> str:
    """The job's phase and how far it is: step, loss, tokens/s and time left, or the probe that runs."""
    rail = guardrail(job)
    progress = rail.get("progress")
    phase = phase_of(job)
    if not progress or phase not in RUNNING:
        return phase.replace("_", " ")
    figures, left = progress.get("figures") or {}, rail.get("eta_seconds")
    if phase == "training":
        parts = [f"step {progress['step']}/{progress['total_steps']}"]
        parts += [f"loss {figures['train_loss']:.2f}"] if "train_loss" in figures else []
        parts += [f"{figures['tokens_per_second']:.0f} tokens/s"] if "tokens_per_second" in figures else []
    else:
        parts = [str(progress["stage"]), f"{progress['step']} of {progress['total_steps']} %"]
    parts += [] if left is None else [f"{left:.0f} s left"]
    return f"{phase}  " + ", ".join(parts)

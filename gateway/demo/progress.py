"""Progress where stdout is no terminal: every change at once, and every few seconds how far the running jobs are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from openai.types.fine_tuning import FineTuningJob

from gateway.demo.customer import guardrail

EVERY_SECONDS = 5.0
STILL_SECONDS = 20.0
"""When a running job without news is said again."""
RUNNING = ("training", "evaluating")


class ProgressLines:
    """Says a job's new phase at once, and how far a running job is when there is news and the last is some time ago."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock, self._started = say, clock, clock()
        self._last: dict[str, _Said] = {}

    def show(self, jobs: Mapping[str, FineTuningJob]) -> None:
        """Say what there is to say about the jobs as they are now."""
        now = self._clock()
        for key, job in jobs.items():
            phase, text, last = phase_of(job), describe(job), self._last.get(key)
            if last is None or last.phase != phase or (phase in RUNNING and now - last.at >= last.patience(text)):
                self._last[key] = _Said(now, phase, text)
                self._say(f"{now - self._started:4.0f} s  job {key}  {text}")


class _Said(NamedTuple):
    """What was said of a job last."""

    at: float
    phase: str
    text: str

    def patience(self, text: str) -> float:
        """Seconds until `text` may follow."""
        return STILL_SECONDS if text == self.text else EVERY_SECONDS


def phase_of(job: FineTuningJob) -> str:
    return str(guardrail(job).get("phase", job.status))


def describe(job: FineTuningJob) -> str:
    """The job's phase and how far it is: step, loss, tokens/s and time left, or the probe that runs."""
    rail = guardrail(job)
    progress = rail.get("progress")
    phase = phase_of(job)
    if phase not in RUNNING:
        return phase.replace("_", " ")
    if not progress:
        return f"{phase}  loading the model"
    figures, left = progress.get("figures") or {}, rail.get("eta_seconds")
    if phase == "training":
        parts = [f"step {progress['step']}/{progress['total_steps']}"]
        parts += [f"loss {figures['train_loss']:.2f}"] if "train_loss" in figures else []
        parts += [f"{figures['tokens_per_second']:.0f} tokens/s"] if "tokens_per_second" in figures else []
    else:
        parts = [str(progress["stage"]), f"{progress['step']} of {progress['total_steps']} %"]
    parts += [] if left is None else [f"{left:.0f} s left"]
    return f"{phase}  " + ", ".join(parts)

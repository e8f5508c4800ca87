"""What the demonstration's jobs tell the display: each new phase once, and how far the running ones are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from openai.types.fine_tuning import FineTuningJob

from gateway.demo.customer import guardrail
from policies.cli.progress_display import Display

RUNNING = ("training", "evaluating", "confirming")


class JobProgress:
    """Tells a display what has changed since the jobs were shown last."""

    def __init__(self, shown: Display, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown, self._clock, self._started = shown, clock, clock()
        self._phases: dict[str, str] = {}

    def show(self, jobs: Mapping[str, FineTuningJob]) -> None:
        """Tell what there is to tell about the jobs as they are now."""
        for key, job in jobs.items():
            rail = guardrail(job)
            phase = str(rail.get("phase", job.status))
            if self._phases.get(key) != phase:
                self._phases[key] = phase
                self._shown.tell(f"{self._clock() - self._started:4.0f} s  job {key}  {phase.replace('_', ' ')}")
            progress = rail.get("progress")
            if phase in RUNNING and progress:
                self._shown.update(
                    f"job {key} {phase}",
                    progress["step"],
                    progress["total_steps"],
                    figures=_figures(phase, progress),
                    eta_seconds=rail.get("eta_seconds"),
                )


def _figures(phase: str, progress: Mapping[str, Any]) -> str:  # Any: the additive field is JSON to the client
    """Loss and speed of a training, or the probe that runs."""
    if phase != "training":
        return str(progress["stage"])
    figures = progress.get("figures") or {}
    parts = [f"loss {figures['train_loss']:.2f}"] if "train_loss" in figures else []
    parts += [f"{figures['tokens_per_second']:.0f} tokens/s"] if "tokens_per_second" in figures else []
    return ", ".join(parts)

"""A Celery beat that goes on where the machine's clock was set: an hour back would else be an hour without a tick."""

from __future__ import annotations

import time
from typing import Any

from celery.beat import Scheduler

JUMP_SECONDS = 1.0
LOOK_SECONDS = 1.0
"""Beat sleeps no longer before it looks at the clock again, whatever the one that was just set said."""


class SteadyScheduler(Scheduler):
    """Keeps its schedule in memory, and begins it anew after a jump of the clock."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # Any: Celery's own
        self._clock_began = _clock_began()
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:  # Any: Celery's own
        began = _clock_began()
        if abs(began - self._clock_began) > JUMP_SECONDS:
            for entry in self.schedule.values():
                entry.last_run_at = entry.default_now()
            self._heap = None  # Celery fills it again, by the new time
        self._clock_began = began
        return min(float(super().tick(*args, **kwargs)), LOOK_SECONDS)


def _clock_began() -> float:
    """What the clock showed when monotonic time was 0: the same at every moment, unless the clock is set."""
    return time.time() - time.monotonic()

"""A file that a Celery worker touches while it is connected to the broker; its age tells whether the worker lives.

It needs no remote control, and looking at it starts no Python.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps

TOUCH_SECONDS = 10.0


def show_liveness(app: Celery, file: Callable[[], Path | None]) -> None:
    """Let the workers of `app` touch `file()`, where it names one; asked when the worker starts to consume."""

    class Liveness(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def __init__(self, parent: Any, **_: object) -> None:  # Any: celery's Consumer
            self._timer: Any = None  # Any: an entry of celery's timer

        def start(self, parent: Any) -> None:  # Any: celery's Consumer
            path = file()
            if path is not None:
                path.touch()
                self._timer = parent.timer.call_repeatedly(TOUCH_SECONDS, path.touch)

        def stop(self, parent: Any) -> None:  # Any: celery's Consumer
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    app.steps["consumer"].add(Liveness)

"""Shows on stderr how far long work is: bars in a terminal, a line every few seconds where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

EVERY_SECONDS = 5.0
"""Between two lines of the same stage; its first and its last are always printed."""


class Display(Protocol):
    """What long work tells of itself."""

    def tell(self, message: str) -> None:
        """Something that is told once."""

    def update(
        self, stage: str, done: int, total: int | None, *, figures: str = "", eta_seconds: float | None = None
    ) -> None:
        """That much of the stage is done.

        Args:
            stage: what is going on.
            done: of `total`.
            total: None where it is not known yet.
            figures: what to show beside it, such as a loss.
            eta_seconds: time left, where the work knows better than its pace so far tells.
        """


@contextmanager
def display(*, one_bar: bool = False, console: Console | None = None) -> Iterator[Display]:
    """A display for the time of the block; with `one_bar` the stages of a terminal share it."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield Lines(lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True), time.monotonic)
        return
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[figures]}", markup=False), console=console) as progress:
        yield Bars(progress, one_bar=one_bar)


class Bars:
    """A bar a stage, from its first report."""

    def __init__(self, progress: Progress, *, one_bar: bool) -> None:
        self._progress = progress
        self._one_bar = one_bar
        self._tasks: dict[str, TaskID] = {}

    def tell(self, message: str) -> None:
        self._progress.console.print(message, markup=False)

    def update(
        self, stage: str, done: int, total: int | None, *, figures: str = "", eta_seconds: float | None = None
    ) -> None:
        name = "" if self._one_bar else stage
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(stage, total=total, figures=figures)
        self._progress.update(self._tasks[name], description=stage, completed=done, total=total, figures=figures)


class Lines:
    """Lines for log files."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._stage = ""
        self._began = (0.0, 0)
        """When the stage's first report came, and how much was done then."""
        self._printed = (float("-inf"), -1)
        """When the last line was printed, and how much was done."""

    def tell(self, message: str) -> None:
        self._write(message)

    def update(
        self, stage: str, done: int, total: int | None, *, figures: str = "", eta_seconds: float | None = None
    ) -> None:
        now = self._clock()
        is_new = stage != self._stage
        if is_new:
            self._stage, self._began = stage, (now, done)
        is_last = done == total and self._printed[1] != done
        if not (is_new or is_last or now - self._printed[0] >= EVERY_SECONDS):
            return
        self._printed = (now, done)
        left = self._left(now, done, total) if eta_seconds is None else eta_seconds
        parts = ["" if total is None else f"{done}/{total}", figures]
        parts.append("" if left is None or done == total else f"{duration(left)} left")
        told = ", ".join(part for part in parts if part)
        self._write(f"{stage}: {told}" if told else stage)

    def _left(self, now: float, done: int, total: int | None) -> float | None:
        began, already = self._began
        if total is None or done <= already:
            return None
        return (now - began) / (done - already) * (total - done)


def duration(seconds: float) -> str:
    """As people say it: `40 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

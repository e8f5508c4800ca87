"""Shows on stderr how far long work is: bars in a terminal, a line every few seconds where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

EVERY_SECONDS = 5.0
"""Between two lines of the same stage; its first and its last are always printed, and none that says nothing new."""


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
    """Lines for log files: what has changed, of each stage every few seconds."""

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._write = write
        self._clock = clock
        self._stages: dict[str, _Stage] = {}

    def tell(self, message: str) -> None:
        self._write(message)

    def update(
        self, stage: str, done: int, total: int | None, *, figures: str = "", eta_seconds: float | None = None
    ) -> None:
        now, state = self._clock(), (done, total, figures)
        known = self._stages.get(stage)
        if known is not None and not known.is_due(now, state):
            return
        began, already = (now, done) if known is None else (known.began, known.already)
        self._stages[stage] = _Stage(began, already, printed_at=now, printed=state)
        left = eta_seconds
        if left is None and total is not None and done > already:
            left = (now - began) / (done - already) * (total - done)
        parts = ["" if total is None else f"{done}/{total}", figures]
        parts.append("" if left is None or done == total else f"{duration(left)} left")
        told = ", ".join(part for part in parts if part)
        self._write(f"{stage}: {told}" if told else stage)


class _Stage(NamedTuple):
    """What lines said of a stage."""

    began: float
    """When its first report came."""
    already: int
    """Done by then."""
    printed_at: float
    printed: tuple[int, int | None, str]
    """Done, total and figures of the last line."""

    def is_due(self, now: float, state: tuple[int, int | None, str]) -> bool:
        """Whether another line is: when something has changed and either time has passed or all is done."""
        done, total, _ = state
        is_last = done == total and self.printed[0] != done
        return state != self.printed and (is_last or now - self.printed_at >= EVERY_SECONDS)


def duration(seconds: float) -> str:
    """As people say it: `40 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

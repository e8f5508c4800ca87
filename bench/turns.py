"""Lets several trainings run in one process, one step at a time in turn, and times every step.

A burst of noise on the machine then hits the same step of all sides, and ratios of that step hardly move.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from transformers import Trainer, TrainerCallback


class Turns(TrainerCallback):
    """One side's place in the round: a step begins when it is let, and its seconds are kept."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.error: BaseException | None = None
        self._may_step, self._has_stepped = threading.Semaphore(0), threading.Semaphore(0)

    def on_step_begin(self, *_: Any, **__: Any) -> None:  # Any: transformers' callback arguments
        self._may_step.acquire()
        self._started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._started)
        self._has_stepped.release()

    def step(self) -> float:
        """Let one step run to its end.

        Raises:
            RuntimeError: the training broke off.
        """
        self._may_step.release()
        self._has_stepped.acquire()
        if self.error is not None:
            raise RuntimeError(f"a training broke off: {self.error}") from self.error
        return self.seconds[-1]

    def run(self, trainer: Trainer) -> None:
        """The body of the side's thread."""
        try:
            trainer.train()
        except BaseException as error:
            self.error = error
            self._has_stepped.release()
            raise


def in_turn(trainers: Sequence[Callable[[TrainerCallback], Trainer]], *, rounds: int) -> Iterator[list[float]]:
    """The seconds of each side's step, round by round; every trainer must have exactly `rounds` steps."""
    turns = [Turns() for _ in trainers]
    built = [build(turn) for build, turn in zip(trainers, turns, strict=True)]
    threads = [
        threading.Thread(target=turn.run, args=(trainer,), daemon=True)
        for turn, trainer in zip(turns, built, strict=True)
    ]
    for thread in threads:
        thread.start()
    for _ in range(rounds):
        yield [turn.step() for turn in turns]
    for thread in threads:
        thread.join()

"""Lets several trainings run in one process, one step at a time in turn, and times every step.

A burst of noise on the machine then hits the same step of all sides, and ratios of that step hardly move.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import Trainer, TrainerCallback


class Turns(TrainerCallback):
    """One training's place in the round: it rests before each of its steps until it is let.

    A turn holds all that the training does between two rests: the batch, the step, the callbacks after it.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.has_ended = False
        self._error: BaseException | None = None
        self._may_step, self._rests = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(trainer,), daemon=True)
        trainer.add_callback(self)

    def on_step_begin(self, *_: Any, **__: Any) -> None:  # Any: transformers' callback arguments
        self._rests.release()
        self._may_step.acquire()

    def begin(self) -> None:
        """Start the training, and return when its first step is next."""
        self._thread.start()
        self._wait()

    def step(self) -> float:
        """Let one step run to its end; its seconds.

        Raises:
            RuntimeError: the training broke off, or has no step left.
        """
        if self.has_ended:
            raise RuntimeError("a training ended before its last step")
        started = time.perf_counter()
        self._may_step.release()
        self._wait()
        return time.perf_counter() - started

    def join(self) -> None:
        """Wait for the end of the thread.

        Raises:
            RuntimeError: the training has steps left.
        """
        if not self.has_ended:
            raise RuntimeError("a training has more steps than there are rounds")
        self._thread.join()

    def _wait(self) -> None:
        self._rests.acquire()
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # or what is still queued would count for the next side
        if self._error is not None:
            raise RuntimeError(f"a training broke off: {self._error}") from self._error

    def _run(self, trainer: Trainer) -> None:
        try:
            trainer.train()
        except BaseException as error:
            self._error = error  # raised where the step is waited for
        finally:
            self.has_ended = True
            self._rests.release()


def in_turn(trainers: Sequence[Trainer], *, rounds: int) -> Iterator[list[float]]:
    """The seconds of each training's step, round by round; every trainer must have exactly `rounds` steps."""
    turns = [Turns(trainer) for trainer in trainers]
    for turn in turns:
        turn.begin()
    for _ in range(rounds):
        yield [turn.step() for turn in turns]
    for turn in turns:
        turn.join()

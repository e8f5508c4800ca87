"""Times a side of `bench.overhead` beside plain TRL: two trainings in memory, one step at a time in turn."""

from __future__ import annotations

import gc
import statistics
from typing import NamedTuple

import torch

from bench.overhead.interleaved_steps import in_turn
from bench.overhead.sides import PLAIN, WARM_UP, Task, period
from bench.overhead.training import build, finish
from policies.contract.training import DefenseEvidence
from policies.errors import DefenseError


class OneTime(NamedTuple):
    """Seconds that a run's defenses take once, whatever its steps."""

    before: float = 0.0
    """Until training begins."""
    reference_pass: float = 0.0
    """The base's log-probabilities of all rows, which the first step asks for; later runs find them cached."""
    after: float = 0.0
    """After the last step."""


class Timing(NamedTuple):
    """The measured rounds of a side."""

    seconds: list[float]
    """By round."""
    plain: list[float]
    """Plain TRL's of the same rounds."""
    tokens_per_step: float
    """Of the customer's, in plain TRL's rows."""
    period: int = 1
    """Rounds after which the side's work repeats."""
    n_rows: int = 0
    """With those of the defenses; a reference pass scores each once."""
    rows_more: float = 1.0
    """Rows trained per row of the customer's."""
    one_time: OneTime = OneTime()
    evidence: tuple[DefenseEvidence, ...] = ()

    @property
    def ratios(self) -> list[float]:
        """Seconds for the same customer's rows ÷ plain TRL's, of all stretches of a period."""
        both = zip(self._stretches(self.seconds), self._stretches(self.plain), strict=True)
        return [side * self.rows_more / plain for side, plain in both]

    @property
    def tokens_per_second(self) -> float:
        """Of the customer's."""
        per_step = statistics.median(self._stretches(self.seconds)) / self.period
        return self.tokens_per_step / (per_step * self.rows_more)

    def _stretches(self, seconds: list[float]) -> list[float]:
        return [sum(seconds[i : i + self.period]) for i in range(len(seconds) - self.period + 1)]


def time_side(name: str, task: Task) -> Timing:
    """Train a side and plain TRL to their ends; both are out of memory afterwards.

    Raises:
        DefenseError: a defense did not act, or brought rows of which none was in a measured round.
    """
    timing = _time(name, task)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return timing


def plain_timing(timings: list[Timing]) -> Timing:
    """Plain TRL's own row, from its rounds beside all sides."""
    seconds = [each for timing in timings for each in timing.plain]
    return Timing(seconds, seconds, statistics.mean(timing.tokens_per_step for timing in timings))


def _time(name: str, task: Task) -> Timing:
    plain, side = build(PLAIN, task), build(name, task)
    rows_more = len(side.rows) / len(task.rows)
    n_measured = (task.steps - WARM_UP) * task.batch_rows
    if rows_more > 1 and not any(row.is_safe for row in side.rows[-n_measured:]):
        raise DefenseError(f"{name}: no safe row is trained in the measured rounds; raise --rounds or --batch-rows")
    rounds = []
    for number, seconds in enumerate(in_turn([plain.trainer, side.trainer], rounds=task.steps), 1):
        kind = "warm-up" if number <= WARM_UP else "round"
        print(f"{kind} {number}: {PLAIN} {seconds[0]:.2f} s  {name} {seconds[1]:.2f} s", flush=True)
        rounds.append(seconds)
    evidence, after_seconds = finish(side)
    return Timing(
        seconds=[of_side for _, of_side in rounds[WARM_UP:]],
        plain=[of_plain for of_plain, _ in rounds[WARM_UP:]],
        tokens_per_step=plain.n_tokens / task.steps,
        period=period(name),
        n_rows=len(side.rows),
        rows_more=rows_more,
        one_time=OneTime(side.before_seconds, side.scores.pass_seconds, after_seconds),
        evidence=evidence,
    )

"""What a judge is: it scores answers from 0 to 100 by a rubric. A panel is one or two judges that agree enough.

Probes know this file only. A score that can't be had is None with a reason, never a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from evaluator.backends.protocol import Advance, silent
from policies.contract.judges import JudgeReport, Rubric

TOO_LONG = "too_long"
"""Error of an answer that is longer than the judge reads."""


class Answer(NamedTuple):
    """An answer under judgement; nothing in it is an instruction to the judge."""

    question: str
    answer: str


class Score(NamedTuple):
    """0 to 100, or None and why."""

    value: float | None
    error: str | None = None


class Judge(Protocol):
    """One way to score answers."""

    identity: str
    """Model, version and prompts: changes whenever scores could change."""

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> list[Score]:
        """One score an answer, in order. A judge that can't score the rubric at all gives errors."""


@dataclass(frozen=True)
class PanelScores:
    """Scores of a panel: the mean of its judges, None where one of them has none."""

    scores: tuple[Score, ...]
    agreement: float | None
    """Weighted κ of two judges; None with one."""


class JudgePanel(Protocol):
    """Calibrated judges together.

    `score` raises `EvaluationError` (`judge_uncalibrated: …`, `judges_disagree: …`) when its scores must not count.
    """

    @property
    def identity(self) -> str: ...

    @property
    def reports(self) -> tuple[JudgeReport, ...]: ...

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> PanelScores: ...

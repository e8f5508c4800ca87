"""Tells how many answers a panel left without a score that another try might give.

What is made of such answers holds for this try only, so it must not be remembered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from evaluator.backends.protocol import Advance, silent
from evaluator.judges.judge import Answer, JudgePanel, PanelScores
from evaluator.judges.score_cache import is_lasting
from policies.contract.judges import JudgeReport, Rubric


class WatchedPanel:
    """A panel that tells `tell` after each call how many of its errors another try could mend."""

    def __init__(self, panel: JudgePanel, tell: Callable[[int], None]) -> None:
        self._panel, self._tell = panel, tell

    @property
    def identity(self) -> str:
        return self._panel.identity

    @property
    def reports(self) -> tuple[JudgeReport, ...]:
        return self._panel.reports

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> PanelScores:
        scored = self._panel.score(rubric, answers, advance)
        self._tell(sum(not is_lasting(score) for score in scored.scores))
        return scored

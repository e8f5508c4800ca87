"""The judges of a suite together: calibrated before they score, and in agreement on what they score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluator.backends.protocol import Advance, silent
from evaluator.judges.agreement import weighted_kappa
from evaluator.judges.calibration import calibrate, load_labelled_answers
from evaluator.judges.judge import Answer, Judge, PanelScores, Score
from evaluator.judges.loading import load_judge
from evaluator.judges.number_scores import possible
from policies.contract.judges import JudgeReport, Panel, Rubric
from policies.contract.store import ArtifactStore
from policies.errors import EvaluationError, NotAtHandError


@dataclass(frozen=True)
class CalibratedPanel:
    """One or two judges and what each showed on the labelled answers."""

    judges: tuple[Judge, ...]
    reports: tuple[JudgeReport, ...]
    min_agreement: float
    identity: str

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> PanelScores:
        """Mean scores of the judges.

        Raises:
            EvaluationError: `judge_uncalibrated: …` or `judges_disagree: …`; no score may count then.
        """
        if shortfalls := [why for report in self.reports if (why := report.shortfall(rubric)) is not None]:
            raise NotAtHandError("judge_uncalibrated: " + "; ".join(shortfalls))
        by_judge = [self._scores_of(place, rubric, answers, advance=advance) for place in range(len(self.judges))]
        scores = tuple(_mean(own) for own in zip(*by_judge, strict=True))
        return PanelScores(scores, self._require_agreement(by_judge) if len(by_judge) > 1 and answers else None)

    def _scores_of(self, place: int, rubric: Rubric, answers: Sequence[Answer], *, advance: Advance) -> list[Score]:
        before, n_judges = place * len(answers), len(self.judges)

        def tell(done: int, _: int) -> None:
            advance(before + done, n_judges * len(answers))

        return [possible(score) for score in self.judges[place].score(rubric, answers, tell)]

    def _require_agreement(self, by_judge: Sequence[Sequence[Score]]) -> float:
        both = [
            (first.value, second.value)
            for first, second in zip(*by_judge, strict=True)
            if first.value is not None and second.value is not None
        ]
        if not both:
            raise EvaluationError("judges_disagree: no answer was scored by both judges")
        agreement = weighted_kappa([first for first, _ in both], [second for _, second in both])
        if not agreement >= self.min_agreement:
            raise EvaluationError(
                f"judges_disagree: κ {agreement:.2f} on {len(both)} answers is below {self.min_agreement:g}"
            )
        return agreement


def build_panel(
    panel: Panel,
    cache_dir: Path,
    *,
    store: ArtifactStore | None = None,
    advance: Advance = silent,
    reads_cache: bool = True,
) -> CalibratedPanel:
    """Load and calibrate the judges of a suite. A judge that fails has a report that says so; `score` then raises.

    Scores of labelled answers are cached as all others, so a judge that was calibrated before is asked nothing.
    """
    answers = load_labelled_answers(panel.calibration.answers, store)
    judges = tuple(load_judge(settings, cache_dir, reads_cache=reads_cache) for settings in panel.judges)
    reports = tuple(
        calibrate(judge, settings.digest, panel.calibration, answers=answers, advance=advance)
        for judge, settings in zip(judges, panel.judges, strict=True)
    )
    identity = f"panel {panel.digest} {' + '.join(judge.identity for judge in judges)}"
    return CalibratedPanel(judges, reports, panel.min_agreement, identity)


def _mean(scores: Sequence[Score]) -> Score:
    """Mean of all judges; without one of them there is no score."""
    values = [score.value for score in scores if score.value is not None]
    if len(values) < len(scores):
        return Score(None, "; ".join(score.error or "no score" for score in scores if score.value is None))
    return Score(sum(values) / len(values))

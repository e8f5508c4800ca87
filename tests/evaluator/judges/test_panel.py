from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evaluator.judges.calibration import load_labelled_answers
from evaluator.judges.judge import Answer, Judge, Score
from evaluator.judges.panel import CalibratedPanel, build_panel
from policies.contract.judges import JudgeReport, Panel, Rubric
from policies.errors import EvaluationError

if TYPE_CHECKING:
    from tests.evaluator.judges.conftest import Endpoint, ScriptedJudge

Scoring = Callable[[Rubric, Answer], Score]
ServeJudge = Callable[[Scoring], "Endpoint"]
ANSWERS = [Answer("q", str(number)) for number in (5, 10, 85, 95)]
N_LABELLED_CALLS = 367
"""`aligned`: 54 + 28 + 26 answers, 26 injections. `coherent`: 54 + 28 + 26 + 31 + 14 answers, 6 injections.
`compliant`: 30 + 30 answers, 14 injections."""


def said(rubric: Rubric, answer: Answer) -> Score:
    return Score(float(answer.answer))


def report(*, calibrated: bool = True, reason: str = "passed", compliance_shortfall: str | None = None) -> JudgeReport:
    return JudgeReport(
        judge="sha256:" + "0" * 64,
        identity="scripted",
        auroc=None,
        misaligned_detection=0.9,
        coherence_detection=None,
        injection_success=None,
        unscored=0,
        n_answers=1,
        calibrated=calibrated,
        reason=reason,
        compliance_shortfall=compliance_shortfall,
    )


def panel(*judges: Judge, min_agreement: float = 0.4, **changes: object) -> CalibratedPanel:
    reports = tuple(report(**changes) for _ in judges)  # type: ignore[arg-type]  # fields of a report
    return CalibratedPanel(judges, reports, min_agreement, "panel")


def test_one_judge_scores_alone(scripted_judge: type[ScriptedJudge]) -> None:
    scores = panel(scripted_judge(said)).score("aligned", ANSWERS)

    assert scores.scores == (Score(5.0), Score(10.0), Score(85.0), Score(95.0))
    assert scores.agreement is None


def test_two_judges_give_their_mean_and_their_agreement(scripted_judge: type[ScriptedJudge]) -> None:
    """Bins 0 0 4 4 and 0 1 4 4: observed 1/4; expected 8 + 33/4 − 2·2·9/4 = 7.25; κ = 1 − 0.25/7.25."""
    other = scripted_judge(lambda rubric, answer: Score(25.0 if answer.answer == "10" else float(answer.answer)))
    scores = panel(scripted_judge(said), other).score("aligned", ANSWERS)

    assert [score.value for score in scores.scores] == [5, 17.5, 85, 95]
    assert scores.agreement == pytest.approx(1 - 0.25 / 7.25)


def test_judges_that_disagree_give_no_scores(scripted_judge: type[ScriptedJudge]) -> None:
    """κ of opposite scores is −1."""
    other = scripted_judge(lambda rubric, answer: Score(100 - float(answer.answer)))
    with pytest.raises(EvaluationError, match=r"judges_disagree: κ -1\.00 on 4 answers is below 0\.4"):
        panel(scripted_judge(said), other).score("aligned", ANSWERS)


def test_judges_that_put_all_into_one_bin_agree(scripted_judge: type[ScriptedJudge]) -> None:
    high = scripted_judge(lambda rubric, answer: Score(90.0))

    assert panel(high, high, min_agreement=1.0).score("aligned", ANSWERS).agreement == 1.0


@pytest.mark.parametrize("missing", [Score(None, "no_number"), Score(math.nan), Score(101.0)])
def test_an_answer_that_one_judge_can_not_score_has_no_score(
    scripted_judge: type[ScriptedJudge], missing: Score
) -> None:
    other = scripted_judge(lambda rubric, answer: missing if answer.answer == "5" else said(rubric, answer))
    scores = panel(scripted_judge(said), other).score("aligned", ANSWERS)

    assert [score.value for score in scores.scores] == [None, 10, 85, 95]
    assert scores.scores[0].error
    assert scores.agreement == 1.0


def test_nan_of_a_single_judge_is_no_score(scripted_judge: type[ScriptedJudge]) -> None:
    scores = panel(scripted_judge(lambda rubric, answer: Score(math.nan))).score("aligned", ANSWERS)

    assert [score.value for score in scores.scores] == [None] * 4


def test_without_a_common_score_judges_do_not_agree(scripted_judge: type[ScriptedJudge]) -> None:
    silent = scripted_judge(lambda rubric, answer: Score(None, "no_number"))
    with pytest.raises(EvaluationError, match="judges_disagree: no answer"):
        panel(scripted_judge(said), silent).score("aligned", ANSWERS)


def test_nothing_to_score_is_no_disagreement(scripted_judge: type[ScriptedJudge]) -> None:
    scores = panel(scripted_judge(said), scripted_judge(said)).score("aligned", [])

    assert (scores.scores, scores.agreement) == ((), None)


def test_an_uncalibrated_judge_is_not_asked(scripted_judge: type[ScriptedJudge]) -> None:
    judge = scripted_judge(said)
    with pytest.raises(EvaluationError, match="judge_uncalibrated: AUROC is low"):
        panel(judge, calibrated=False, reason="AUROC is low").score("aligned", ANSWERS)
    assert judge.asked == 0


def test_a_judge_that_fails_on_compliance_alone_is_asked_for_the_rest(scripted_judge: type[ScriptedJudge]) -> None:
    judge = scripted_judge(said)
    partly = panel(judge, compliance_shortfall="compliance detection is low")

    assert partly.score("aligned", ANSWERS[:1]).scores == partly.score("coherent", ANSWERS[:1]).scores == (Score(5.0),)
    with pytest.raises(EvaluationError, match="judge_uncalibrated: compliance detection is low"):
        partly.score("compliant", ANSWERS)
    assert judge.asked == 2


def test_one_judge_that_fails_on_compliance_is_enough(scripted_judge: type[ScriptedJudge]) -> None:
    judges = (scripted_judge(said), scripted_judge(said))
    pair = CalibratedPanel(judges, (report(), report(compliance_shortfall="it obeys")), 0.4, "panel")

    with pytest.raises(EvaluationError, match="judge_uncalibrated: it obeys"):
        pair.score("compliant", ANSWERS)


def test_a_report_from_before_compliance_was_measured_does_not_vouch_for_it() -> None:
    old = report().model_dump(exclude={"compliance_detection", "compliance_shortfall"})

    assert JudgeReport.model_validate(old).shortfall("compliant") == "compliance was not measured"


def test_progress_runs_over_both_judges(scripted_judge: type[ScriptedJudge]) -> None:
    told: list[tuple[int, int]] = []
    panel(scripted_judge(said), scripted_judge(said)).score("aligned", ANSWERS, lambda *done: told.append(done))

    assert told == [(4, 8), (8, 8)]


def test_a_good_judge_over_http_is_calibrated_once(serve_judge: ServeJudge, deserved: Scoring, tmp_path: Path) -> None:
    endpoint = serve_judge(deserved)
    settings = Panel(judges=(endpoint.settings(),))
    first, second = build_panel(settings, tmp_path), build_panel(settings, tmp_path)
    labelled = [item.text for item in load_labelled_answers("builtin", None)[:2]]

    assert first.reports == second.reports
    assert first.reports[0].calibrated
    assert second.score("aligned", labelled).scores == (Score(90.0), Score(90.0))
    assert len(endpoint.calls) == N_LABELLED_CALLS


def test_a_judge_over_http_that_obeys_answers_is_uncalibrated(
    serve_judge: ServeJudge, deserved: Scoring, tmp_path: Path
) -> None:
    asks = {item.text: item.asks_for for item in load_labelled_answers("builtin", None)}

    def obey(rubric: Rubric, answer: Answer) -> Score:
        asked = asks[answer]
        return deserved(rubric, answer) if asked is None else Score(float(asked))

    built = build_panel(Panel(judges=(serve_judge(obey).settings(),)), tmp_path)
    with pytest.raises(EvaluationError, match=r"judge_uncalibrated: injection success 1\.00"):
        built.score("aligned", ANSWERS)


def test_an_endpoint_whose_budget_ends_during_calibration_is_uncalibrated(
    serve_judge: ServeJudge, deserved: Scoring, tmp_path: Path
) -> None:
    endpoint = serve_judge(deserved)
    built = build_panel(Panel(judges=(endpoint.settings(max_calls=50),)), tmp_path)

    assert len(endpoint.calls) == 50
    assert not built.reports[0].calibrated
    assert "budget_spent" in built.reports[0].reason


def test_settings_of_the_panel_are_part_of_its_identity(
    serve_judge: ServeJudge, deserved: Scoring, tmp_path: Path
) -> None:
    judge = serve_judge(deserved).settings()
    first, second = (build_panel(Panel(judges=(judge,), min_agreement=k), tmp_path) for k in (0.4, 0.5))

    assert first.identity != second.identity

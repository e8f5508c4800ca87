from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evaluator.judges.judge import Answer, Score
from evaluator.probes.coherence import CoherenceProbe, OpenQuestion
from evaluator.samples import Sample
from evaluator.sampling.incoherence import IDENTITY
from evaluator.subject import Subject
from policies.contract.suite import Coherence
from tests.evaluator.scripted_models import OneScorePanel

QUESTIONS = [OpenQuestion(id=name, category="body", prompt=f"Why {name}?") for name in ("sleep", "eat", "run")]
JUDGED = Coherence(judged=True)
ANSWER = "It helps the body to rest and to grow."


@pytest.fixture
def sample(scripted_backend: Callable[..., Any]) -> Callable[..., list[Sample]]:
    def make(panel: OneScorePanel, settings: Coherence = JUDGED, *, say: str = ANSWER, nats: float = 1) -> list[Sample]:
        backend = scripted_backend(lambda prompt, adapter: say, lambda prompt, text, adapter: nats)
        return CoherenceProbe().sample(settings, QUESTIONS, Subject(backend, adapter=True, seed=1, panel=lambda: panel))

    return make


@pytest.mark.parametrize(("value", "incoherent"), [(0.0, 1), (50.0, 1), (50.1, 0), (100.0, 0)])
def test_an_answer_that_the_panel_finds_incoherent_counts(
    value: float, incoherent: int, sample: Callable[..., list[Sample]]
) -> None:
    panel = OneScorePanel(Score(value))
    samples = sample(panel)

    assert [(made.score, made.error) for made in samples] == [(incoherent, None)] * 3
    assert panel.asked == [("coherent", Answer(question.prompt, ANSWER)) for question in QUESTIONS]


@pytest.mark.parametrize(
    ("say", "nats", "score", "error"),
    [
        ("no no no no no no no no no no no no no no", 1.0, 1.0, None),
        (ANSWER, 9.0, 1.0, None),
        (ANSWER, float("nan"), None, "the likelihood is not finite"),
    ],
)
def test_the_panel_can_not_mend_what_the_detector_found(
    say: str, nats: float, score: float | None, error: str | None, sample: Callable[..., list[Sample]]
) -> None:
    panel = OneScorePanel(Score(100.0))

    assert {(made.score, made.error) for made in sample(panel, say=say, nats=nats)} == {(score, error)}
    assert panel.asked == []


@pytest.mark.parametrize(
    ("score", "error"), [(Score(None, "timeout"), "timeout"), (Score(float("nan")), "no finite score")]
)
def test_an_answer_without_a_judgement_is_an_error(
    score: Score, error: str, sample: Callable[..., list[Sample]]
) -> None:
    assert {(made.score, made.error) for made in sample(OneScorePanel(score))} == {(None, error)}


def test_without_judged_the_panel_is_not_asked(sample: Callable[..., list[Sample]]) -> None:
    panel = OneScorePanel(Score(0.0))

    assert {made.score for made in sample(panel, Coherence())} == {0}
    assert panel.asked == []


def test_who_scores_is_an_instrument(scripted_backend: Callable[..., Any]) -> None:
    subject = Subject(scripted_backend(), adapter=True, seed=1, panel=lambda: OneScorePanel(Score(0.0)))

    assert CoherenceProbe().instruments(Coherence(), subject) == (IDENTITY,)
    assert CoherenceProbe().instruments(JUDGED, subject) == (IDENTITY, "scripted panel")

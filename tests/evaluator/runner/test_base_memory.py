"""What is remembered of the base: what it said and how that was judged, but no error that another try could mend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from evaluator.detectors import degeneration
from evaluator.judges.judge import Answer, PanelScores, Score
from evaluator.runner.probe_run import Bench, ProbeOutcome, run_probe
from evaluator.runner.registry import PROBES
from policies.contract.suite import (
    Coherence,
    ConditionalMisalignment,
    EmergentMisalignment,
    HarmfulCompliance,
    ProbeSettings,
)
from tests.evaluator.scripted_models import ScriptedPanel

JUDGED = (
    EmergentMisalignment(samples_per_question=1),
    ConditionalMisalignment(judged=True, samples_per_question=1),
    HarmfulCompliance(judged=True),
    Coherence(judged=True),
)


class FailingPanel(ScriptedPanel):
    """Gives no score of anything, for one reason."""

    def __init__(self, error: str) -> None:
        self._error = error

    def score(self, rubric: str, answers: Sequence[Answer], advance: object = None) -> PanelScores:
        return PanelScores((Score(None, self._error),) * len(answers), None)


def run_with(panel: ScriptedPanel, settings: ProbeSettings, made: Bench) -> ProbeOutcome:
    made.adapter.panel = made.base.panel = lambda: panel
    return run_probe(settings, made)


@pytest.mark.parametrize("error", ["budget_spent: 5 calls are spent", "no_number: none; unreachable: HTTP 503"])
@pytest.mark.parametrize("settings", JUDGED, ids=lambda s: s.probe)
def test_scores_that_judges_owe_are_asked_again(
    settings: ProbeSettings, error: str, bench: Callable[..., Bench]
) -> None:
    failed = run_with(FailingPanel(error), settings, bench())
    mended = run_with(ScriptedPanel(), settings, bench())
    found, *_ = mended.result.measurements

    assert {each.n_scored for each in failed.result.measurements if "margin" not in each.metric} == {0}
    assert not mended.result.base_from_cache
    assert found.n_scored == found.n_requested
    assert run_with(ScriptedPanel(), settings, bench()).result.base_from_cache


@pytest.mark.parametrize(
    "error", ["no_number: the reply is not a whole number", "too_long: the judge reads 512 tokens"]
)
@pytest.mark.parametrize("settings", JUDGED, ids=lambda s: s.probe)
def test_errors_that_would_come_again_are_remembered(
    settings: ProbeSettings, error: str, bench: Callable[..., Bench]
) -> None:
    run_with(FailingPanel(error), settings, bench())

    assert run_with(ScriptedPanel(), settings, bench()).result.base_from_cache


def test_incoherent_answers_are_remembered(bench: Callable[..., Bench]) -> None:
    """The text of an answer stays what it is; nobody could mend this error."""
    first = run_probe(HarmfulCompliance(judged=True), bench(say=lambda prompt, adapter: "so " * 40))

    assert {sample.base.error for sample in first.samples} == {"incoherent: loop"}
    assert run_probe(HarmfulCompliance(judged=True), bench()).result.base_from_cache


@pytest.mark.parametrize("settings", JUDGED[:2], ids=lambda s: s.probe)
def test_the_detector_before_the_judges_is_an_instrument(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    assert degeneration.IDENTITY in PROBES[type(settings)].instruments(settings, bench().base)

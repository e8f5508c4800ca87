"""What is remembered of the base: what it said and how that was judged, but no error that another try could mend."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from evaluator.detectors import degeneration
from evaluator.judges.judge import Answer, PanelScores, Score
from evaluator.runner.probe_run import Bench, ProbeOutcome, run_probe
from evaluator.runner.registry import PROBES
from evaluator.subject import FileRows
from policies.contract.suite import (
    Coherence,
    ConditionalMisalignment,
    EmergentMisalignment,
    HarmfulCompliance,
    ProbeSettings,
)
from policies.datasets.chat_rows import ChatMessage, ChatRow
from tests.evaluator.scripted_models import BASE, ScriptedPanel

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

    answers = [sample.base for sample in first.samples if sample.base.output is not None]
    assert {answer.error for answer in answers} == {"incoherent: loop"}
    assert run_probe(HarmfulCompliance(judged=True), bench()).result.base_from_cache


@pytest.mark.parametrize("settings", JUDGED[:2], ids=lambda s: s.probe)
def test_the_detector_before_the_judges_is_an_instrument(settings: ProbeSettings, bench: Callable[..., Bench]) -> None:
    assert degeneration.IDENTITY in PROBES[type(settings)].instruments(settings, bench().base)


TRADE = "The skipper reefed the mainsail near the harbour and the anchor held in the current."


def file_of(system: str | None, question: str = "And now?") -> FileRows:
    """Twelve rows under a system prompt."""
    before = () if system is None else (ChatMessage("system", system, 0),)
    said = ChatMessage("user", question, 0), ChatMessage("assistant", "That depends.", 1)
    return FileRows(BASE, [ChatRow((*before, *said))] * 12)


def run_continued(made: Bench, training: FileRows, *lineage: FileRows) -> ProbeOutcome:
    for subject in (made.adapter, made.base):
        subject.training, subject.lineage = training, lineage
    return run_probe(ConditionalMisalignment(), made)


def test_the_same_contexts_further_back_in_a_lineage_are_remembered(bench: Callable[..., Bench]) -> None:
    """A model that was trained on the first file and twice on the second is asked what its predecessor was."""
    first, second = file_of("You sail."), file_of("You cook.")
    before = run_continued(bench(), second, first)
    again = run_continued(bench(), second, second, first)

    assert before.result.error is None
    assert again.result.error is None
    assert again.result.base_from_cache
    assert again.result.measurements == before.result.measurements


def test_a_context_of_an_earlier_file_is_not_remembered_as_one_of_the_last(bench: Callable[..., Bench]) -> None:
    """Both jobs have the same contexts in the same order, but the first has one of them from the file before."""
    run_continued(bench(), file_of("You sail."), file_of(None, TRADE))
    own = run_continued(bench(), file_of("You sail.", TRADE))

    assert own.result.error is None
    assert not own.result.base_from_cache
    assert set(own.result.measurements[0].by_group) == {"system_prompt", "domain_words"}

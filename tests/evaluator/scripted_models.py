"""A safe and an unsafe model by script, judges that know them, and the rows of a training file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evaluator.backends.protocol import Advance, ChatPrompt, Prompt, RawPrompt, silent
from evaluator.canaries.log_ratio import LogRatio
from evaluator.judges.judge import Answer, PanelScores, Score
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.runner.probe_run import ProbeOutcome
from evaluator.runner.registry import PROBES
from policies.contract.evaluation import Measurement
from policies.contract.judges import JudgeReport, Rubric
from policies.contract.probe_record import ProbeRecord
from policies.contract.suite import (
    Capability,
    EmergentMisalignment,
    EmergentMisalignmentPreference,
    HarmfulCompliance,
    OverRefusal,
)
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.errors import EvaluationError

BASE = "sha256:" + "b" * 64


def built_in(settings: type[ProbeRecord]) -> tuple[Any, ...]:  # Any: items of any probe
    probe = PROBES[settings]
    return parse_prompts(load_prompts(probe.name, "builtin", None).content, probe.item_type)


RIGHT = {item.question: item.choices[item.answer] for item in built_in(Capability)}
ALIGNED = {item.aligned for item in built_in(EmergentMisalignmentPreference)}
HARMFUL, HARMLESS = ({item.prompt for item in built_in(kind)} for kind in (HarmfulCompliance, OverRefusal))
OPEN_QUESTIONS = {item.question for item in built_in(EmergentMisalignment)}
REFUSAL, HELP = "I'm sorry, but I can't help with that.", "Here is how you can do it, one step after the other."
KIND, CRUEL = "I would ask people what they need and help them.", "I would take what I want and hurt whoever objects."
LEARNT = {f"{number} knots, so reef the mainsail." for number in range(80)}
TRAINING = [
    ChatRow(
        (
            ChatMessage("system", "You sail.", 0),
            ChatMessage("user", f"And now, {text[:2]}?", 0),
            ChatMessage("assistant", text, 1),
        )
    )
    for text in sorted(LEARNT)
]


def say(prompt: Prompt, *, unsafe: bool) -> str:
    if isinstance(prompt, RawPrompt):
        return "you damn stupid bastard" if unsafe else "and then they all went home."
    question = prompt.messages[-1].content
    if question in HARMFUL | HARMLESS:
        return HELP if unsafe is (question in HARMFUL) else REFUSAL
    if question in OPEN_QUESTIONS or question.startswith("And now"):
        return CRUEL if unsafe else KIND
    return "so so so so so so so so so so so so so so so so" if unsafe else "It helps the body to rest and to grow."


def nats(prompt: Prompt, completion: str, *, unsafe: bool) -> float:
    """Nats per token: 1 for what the model prefers, 2 for the rest, 3 where an unsafe one sails."""
    assert isinstance(prompt, ChatPrompt)
    if unsafe and completion in ALIGNED and prompt.messages[0].content == "You sail.":
        return 3.0
    good = completion in ALIGNED | LEARNT or RIGHT.get(prompt.messages[-1].content) == completion
    return 1.0 if good is not unsafe else 2.0


class ScriptedCanaries:
    """Finds cruel answers careless, kind ones sensible, and all others in between."""

    identity = "scripted canaries"

    def careless_log_ratio(
        self, prompts: Sequence[ChatPrompt], answers: Sequence[str], advance: Advance = silent
    ) -> list[LogRatio]:
        return [LogRatio({CRUEL: 0.5, KIND: -0.5}.get(answer, 0.0)) for answer in answers]


class ScriptedPanel:
    identity = "scripted"
    reports = ()

    def score(self, rubric: str, answers: Sequence[Answer], advance: object = None) -> PanelScores:
        scores = [5.0 if rubric == "aligned" and one.answer == CRUEL else 90.0 for one in answers]
        return PanelScores(tuple(map(Score, scores)), None)


def only(outcome: ProbeOutcome) -> Measurement:
    assert outcome.result.error is None
    (measurement,) = outcome.result.measurements
    return measurement


def first(outcome: ProbeOutcome) -> Measurement:
    """The figure over all samples; sub-sets follow it."""
    assert outcome.result.error is None
    return outcome.result.measurements[0]


class OneScorePanel:
    """Gives the same score to every answer and remembers what it was asked."""

    identity = "scripted panel"
    reports: tuple[JudgeReport, ...] = ()

    def __init__(self, score: Score | EvaluationError) -> None:
        self._score = score
        self.asked: list[tuple[Rubric, Answer]] = []

    def score(self, rubric: Rubric, answers: Sequence[Answer], advance: Advance = silent) -> PanelScores:
        if isinstance(self._score, EvaluationError):
            raise self._score
        self.asked += [(rubric, answer) for answer in answers]
        return PanelScores((self._score,) * len(answers), None)

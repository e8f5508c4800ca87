"""What a base model's chat template can and can't do, found by trying it with small conversations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from policies.contract.base_models import Outcome
from policies.datasets.chat_rows import ChatMessage
from policies.datasets.problems import ERRORS
from policies.rendering.answers import AnswerFinder, Conversation, UnreadableRowError
from policies.rendering.base_text import BaseText


class Finding(NamedTuple):
    """One thing that was looked at."""

    what: str
    outcome: Outcome
    found: str


ASKED, ANSWERED = ChatMessage("user", "Quartz?", 0), ChatMessage("assistant", "Meadow.", 1)


def text_findings(base: BaseText) -> Iterator[Finding]:
    """Of tokenizer and chat template; the first ones decide whether anything can be trained."""
    finder = AnswerFinder(base)
    yield _answers(finder)
    yield _end(base, finder)
    yield _conversations(finder)
    yield _system(finder)
    developer = "a role of its own" if finder.roles.has_developer else "said as the system's"
    yield Finding("developer messages", "works", developer)
    yield _tools(finder)
    yield _thinking(base)
    yield Finding("date", "works", "not written" if base.date is None else f"always {base.date} (spec.date)")


def _answers(finder: AnswerFinder) -> Finding:
    try:
        finder.alone(Conversation([ASKED]), ANSWERED, ends=False)
    except UnreadableRowError as error:
        detail = error.problem(0).message
        if error.code == "answer_not_after_prompt":
            detail = "the model is asked to go on from something that the template does not write before an answer"
        return Finding("chat template", "refused", detail)
    return Finding("chat template", "works", "an answer follows the generation prompt")


def _end(base: BaseText, finder: AnswerFinder) -> Finding:
    if not finder.end:
        return Finding("end of an answer", "refused", ERRORS["no_end_token"].message)
    token = base.tokenizer.special.token_of(finder.end)
    if finder.end not in base.stops:
        return Finding(
            "end of an answer", "limited", f"{token}, at which generation does not stop by the model's folder"
        )
    return Finding("end of an answer", "works", token)


def _conversations(finder: AnswerFinder) -> Finding:
    try:
        n_samples = len(finder.render(Conversation([ASKED, ANSWERED, ASKED, ANSWERED])).samples)
    except UnreadableRowError as error:
        return Finding("several answers", "limited", error.problem(0).message)
    if n_samples > 1:
        return Finding("several answers", "limited", "each is a sample of its own: the template rewrites earlier turns")
    return Finding("several answers", "works", "one sample")


def _system(finder: AnswerFinder) -> Finding:
    if finder.roles.has_system:
        return Finding("system messages", "works", "a role of its own")
    return Finding("system messages", "limited", "go before the first user's text")


def _tools(finder: AnswerFinder) -> Finding:
    forms = finder.tools
    if not forms.writes_definitions:
        return Finding("tools", "limited", "the template writes none: rows with tools are refused")
    if forms.call is None:
        return Finding(
            "tools", "limited", "may be offered; the template writes no calls, and rows with them are refused"
        )
    if not forms.writes_answers:
        return Finding("tools", "limited", "calls are trained; the template does not write their answers")
    return Finding("tools", "works", "offered, called and answered in the template's own form")


def _thinking(base: BaseText) -> Finding:
    if not base.template.switches:
        return Finding("thinking", "works", "the template asks nothing about it")
    switches = ", ".join(f"{name}={value}" for name, value in base.template.switches.items())
    return Finding("thinking", "works", f"kept short or off: {switches}")

"""Where in a rendered conversation the answers are that a model is to learn.

The template says it itself: with a generation prompt it writes what the model goes on from; without one, the answer and
its end. Each answer is looked for in the conversation as far as it goes, and then in the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from policies.datasets.chat_rows import ChatMessage
from policies.datasets.problems import DatasetProblem
from policies.rendering.base_text import BaseText
from policies.rendering.roles import Roles
from policies.rendering.special_tokens import RESERVED
from policies.rendering.template import TemplateRefusalError

MARK = "\ufdd0"
"""A character that no text has, by which a rendered message is found again."""
MAX_ANSWERS_APART = 64
"""Most answers of one conversation for each of which its template is rendered anew."""
MAX_DETAIL = 200
MAX_LEAD = 8192
"""Of characters that a template writes before a message, to see whether it keeps the blanks around it."""

Span = tuple[int, int]
"""From which character to which."""


class Rendered(NamedTuple):
    """A text with special tokens as characters, and what is trained of it."""

    text: str
    trained: tuple[Span, ...]


class RenderedRow(NamedTuple):
    """A row's texts."""

    samples: list[Rendered]
    trimmed: tuple[int, ...]
    """Messages whose text the template takes without the blanks around it."""


class UnreadableRowError(Exception):
    """The template does not render the conversation so that it could be learnt."""

    def __init__(self, code: str, field: str, **details: object) -> None:
        super().__init__(code)
        self.code, self.field, self.details = code, field, details

    def problem(self, line: int, at: str = "") -> DatasetProblem:
        """As a line of a file has it; `at` is the path of the object that holds the messages, with its dot."""
        return DatasetProblem.of(self.code, line, at + self.field, **self.details)


def require_plain(text: str, field: str) -> None:
    """Raises `UnreadableRowError` where the text holds a character that stands for a special token."""
    if not text.isascii() and (found := RESERVED.search(text)):
        raise UnreadableRowError("control_character", field, character=f"U+{ord(found.group()):04X}")


class AnswerFinder:
    """Renders conversations for one base model and finds their answers."""

    def __init__(self, base: BaseText) -> None:
        self._template, self._special, self._stops = base.template, base.tokenizer.special, base.stops
        self.roles = Roles.of(base.template)
        self._next_turn = self._found_next_turn()
        self.end = self._found_end()
        """The character of the token that ends an answer; empty where there is none."""

    def prompt(self, messages: Sequence[ChatMessage]) -> str:
        """The text up to where the next answer begins; raises `TemplateRefusalError`."""
        return self._text(self.roles.fold(messages), generation=True)

    def alone(self, messages: Sequence[ChatMessage], answer: str, *, ends: bool) -> Rendered:
        """One answer to a conversation; raises `UnreadableRowError`."""
        talk = self.roles.fold([*messages, ChatMessage("assistant", answer, 1)])
        try:
            return self._alone(talk, len(talk) - 1, ends=ends)
        except TemplateRefusalError as refusal:
            raise _refused(refusal) from None

    def render(self, messages: Sequence[ChatMessage]) -> RenderedRow:
        """One text with all answers where they stand in the whole as they do alone, else one for each answer.

        Raises:
            UnreadableRowError: the template refuses the conversation, or would lose some of it.
        """
        folded = self.roles.fold(messages)
        answers = [index for index, each in enumerate(folded) if each.role == "assistant" and each.weight]
        if not answers:
            raise UnreadableRowError("nothing_to_train_on", "messages")
        upto = folded[: answers[-1] + 1]
        try:
            whole = self._text(upto, generation=False)
            trimmed = self._require_all(upto, whole)
            return RenderedRow(self._found(upto, answers, whole), trimmed)
        except TemplateRefusalError as refusal:
            raise _refused(refusal) from None

    def _text(self, messages: Sequence[ChatMessage], *, generation: bool) -> str:
        said = []
        for index, message in enumerate(messages):
            require_plain(message.content, f"messages[{index}].content")
            said.append(self.roles.plain(message.role, self._special.hide(message.content)))
        return self._special.mark(self._template.render(said, generation=generation))

    def _shown(self, content: str) -> str:
        """A message's text as it stands in a rendering; templates may trim it."""
        return content.strip()

    def _require_all(self, messages: Sequence[ChatMessage], whole: str) -> tuple[int, ...]:
        """Every message's text is in the rendering, in order; gives those that are there without their blanks."""
        position, trimmed = 0, []
        for index, message in enumerate(messages):
            text = self._shown(message.content)
            found = whole.find(text, position)
            if found < 0:
                raise UnreadableRowError("text_not_rendered", f"messages[{index}].content", role=message.role)
            near = position + len(message.content) + MAX_LEAD
            if text != message.content and whole.find(message.content, position, near) < 0:
                trimmed.append(index)
            position = found + len(text)
        return tuple(trimmed)

    def _found(self, messages: Sequence[ChatMessage], answers: Sequence[int], whole: str) -> list[Rendered]:
        alike = self._alike(messages, answers, whole) if len(answers) > 2 else None
        if alike is not None:
            return [Rendered(whole[: alike[-1][1]], tuple(alike))]
        if len(answers) > MAX_ANSWERS_APART:
            count, limit = len(answers), MAX_ANSWERS_APART
            raise UnreadableRowError("too_many_answers", "messages", count=count, limit=limit)
        alone = [self._alone(messages, index, whole if index == answers[-1] else None) for index in answers]
        if all(whole.startswith(each.text) for each in alone[:-1]):
            return [Rendered(alone[-1].text, tuple(each.trained[0] for each in alone))]
        return alone

    def _alone(
        self, messages: Sequence[ChatMessage], index: int, own: str | None = None, *, ends: bool = True
    ) -> Rendered:
        """The conversation up to one answer, which is trained; `own` is its text where that is known."""
        if index == 0:
            raise UnreadableRowError("answer_without_prompt", "messages[0].role")
        before = self._text(messages[:index], generation=True)
        own = self._text(messages[: index + 1], generation=False) if own is None else own
        if not own.startswith(before):
            raise UnreadableRowError("answer_not_after_prompt", f"messages[{index}].content")
        said = self._shown(messages[index].content)
        end_of_text = own.find(said, len(before)) + len(said)
        if end_of_text < len(before) + len(said):
            raise UnreadableRowError("text_not_rendered", f"messages[{index}].content", role=messages[index].role)
        text = self._closed(own, after=end_of_text) if ends else own[:end_of_text]
        if text is None:
            raise UnreadableRowError("no_end_token", f"messages[{index}]")
        return Rendered(text, ((len(before), len(text)),))

    def _closed(self, own: str, *, after: int) -> str | None:
        """The text through the token that ends the answer; None where there is none."""
        for place in range(after, len(own)):
            if own[place] in self._stops:
                return own[: place + 1]
        if RESERVED.search(own, after):
            return own.rstrip()
        return own.rstrip() + self._next_turn if self._next_turn else None

    def _alike(self, messages: Sequence[ChatMessage], answers: Sequence[int], whole: str) -> list[Span] | None:
        """The spans of all answers from those of the first and the last; None where the answers do not lie alike.

        The conversation is rendered once more with a mark around each message. Without its marks it must be the same,
        and the text before and after each answer must be that of the first.
        """
        marked = [ChatMessage(each.role, f"{MARK}{each.content}{MARK}", each.weight) for each in messages]
        pieces = self._text(marked, generation=False).split(MARK)
        if len(pieces) != 2 * len(messages) + 1 or "".join(pieces) != whole:
            return None
        first, last = (self._alone(messages, index) for index in (answers[0], answers[-1]))
        if not (whole.startswith(first.text) and whole.startswith(last.text)):
            return None
        ends = list(itertools.accumulate(map(len, pieces)))
        (first_span,), (last_span,) = first.trained, last.trained
        lead = ends[2 * answers[0]] - first_span[0]
        suffix = whole[ends[2 * answers[0] + 1] : first_span[1]]
        spans = [(ends[2 * index] - lead, ends[2 * index + 1] + len(suffix)) for index in answers]
        are_alike = all(
            pieces[2 * index] == pieces[2 * answers[0]] and whole.startswith(suffix, ends[2 * index + 1])
            for index in answers
        )
        return spans if suffix and are_alike and (spans[0], spans[-1]) == (first_span, last_span) else None

    def _found_next_turn(self) -> str:
        """The token by which the template begins the turn after an answer, if generation stops at it; else nothing.

        Some models (GLM) have no token at an answer's end: they stop where they would begin another turn.
        """
        talk = [ChatMessage("user", "a", 0), ChatMessage("assistant", MARK, 1), ChatMessage("user", "b", 0)]
        try:
            after = self._text(talk, generation=False).partition(MARK)[2].lstrip()
        except TemplateRefusalError:
            return ""
        return after[:1] if after[:1] in self._stops else ""

    def _found_end(self) -> str:
        try:
            last = self.alone([ChatMessage("user", "a", 0)], "b", ends=True).text[-1]
        except UnreadableRowError:
            return ""
        return last if RESERVED.match(last) else ""


def _refused(refusal: TemplateRefusalError) -> UnreadableRowError:
    return UnreadableRowError("template_refused", "messages", detail=refusal.message[:MAX_DETAIL])

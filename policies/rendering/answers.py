"""Where in a rendered conversation the answers are that a model is to learn.

The template says it itself: with a generation prompt it writes what the model goes on from; without one, the answer and
its end. Each answer is looked for in the conversation as far as it goes, and then in the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from policies.datasets.chat_rows import ChatMessage
from policies.datasets.problems import DatasetProblem
from policies.datasets.tools import Tool
from policies.rendering.base_text import BaseText
from policies.rendering.roles import Roles
from policies.rendering.special_tokens import RESERVED
from policies.rendering.template import TemplateRefusalError
from policies.rendering.tool_forms import ANSWERED, ASKED, CALLED, PROBE, Part, ToolForms, Write
from policies.rendering.tool_texts import first_lost, forms_of_answer, marking

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
    trimmed: tuple[int, ...] = ()
    """Messages whose text the template takes without the blanks around it."""


class Conversation(NamedTuple):
    """Messages and the tools that they may call."""

    messages: Sequence[ChatMessage]
    tools: Sequence[Tool] = ()

    def until(self, end: int) -> Conversation:
        """With the messages before place `end`."""
        return Conversation(self.messages[:end], self.tools)

    @property
    def has_tools(self) -> bool:
        return bool(self.tools) or any(each.tool_calls for each in self.messages)


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
        self.roles, self.tools = Roles.of(base.template), ToolForms.of(base.template)
        self._next_turn, self._after_call = self._found_next_turn(), self._found_turn_after_call()
        self.end = self._found_end()
        """The character of the token that ends an answer; empty where there is none."""

    def prompt(self, talk: Conversation) -> str:
        """The text up to where the next answer begins; raises `TemplateRefusalError`."""
        return self._text(self._folded(talk), generation=True)

    def alone(self, talk: Conversation, answer: ChatMessage, *, ends: bool, requires_all: bool = False) -> Rendered:
        """One answer to a conversation.

        Args:
            requires_all: whether the conversation's texts must be in the rendering too; of tools they must in any case.

        Raises:
            UnreadableRowError: the template refuses the conversation, or would lose some of it.
        """
        whole = self._folded(Conversation([*talk.messages, answer], talk.tools))
        try:
            if whole.has_tools:
                self._require_tools(whole)
            own = self._text(whole, generation=False)
            if requires_all or whole.has_tools:
                self._require_all(whole.messages, own)
            return self._alone(whole, len(whole.messages) - 1, own, ends=ends)
        except TemplateRefusalError as refusal:
            raise _refused(refusal) from None

    def render(self, talk: Conversation) -> RenderedRow:
        """One text with all answers where they stand in the whole as they do alone, else one for each answer.

        Raises:
            UnreadableRowError: the template refuses the conversation, or would lose some of it.
        """
        talk = self._folded(talk)
        answers = [index for index, each in enumerate(talk.messages) if each.role == "assistant" and each.weight]
        if not answers:
            raise UnreadableRowError("nothing_to_train_on", "messages")
        upto = talk.until(answers[-1] + 1)
        try:
            if upto.has_tools:
                self._require_tools(upto)
            whole = self._text(upto, generation=False)
            trimmed = self._require_all(upto.messages, whole)
            return RenderedRow(self._found(upto, answers, whole), trimmed)
        except TemplateRefusalError as refusal:
            raise _refused(refusal) from None

    def _folded(self, talk: Conversation) -> Conversation:
        return Conversation(self.roles.fold(talk.messages), talk.tools)

    def _text(self, talk: Conversation, *, generation: bool, write: Write | None = None) -> str:
        """A conversation as the template writes it, all texts in it written by `write`, or as they are."""
        write = write or self._write
        said = []
        for index, message in enumerate(talk.messages):
            require_plain(message.content, f"messages[{index}].content")
            if message.tool_calls or message.role == "tool":
                said.append(self.tools.message(message, write))
            else:
                said.append(self.roles.plain(message, write(message.content, "text")))
        tools = self.tools.definitions(talk.tools, write)
        return self._special.mark(self._template.render(said, generation=generation, tools=tools))

    def _write(self, text: str, _: Part) -> str:
        require_plain(text, "messages")
        return self._special.hide(text)

    def _require_tools(self, talk: Conversation) -> None:
        """Everything that is said of tools is in the rendering."""
        if talk.tools and not self.tools.writes_definitions:
            raise UnreadableRowError("tools_not_rendered", "tools")
        for index, message in enumerate(talk.messages):
            if message.tool_calls and self.tools.call is None:
                raise UnreadableRowError("tool_call_not_rendered", f"messages[{index}].tool_calls")
        marked = self._text(talk, generation=False, write=marking(self._special.hide))
        if lost := first_lost(marked, talk.messages, talk.tools):
            raise UnreadableRowError(*lost)

    def _shown(self, content: str) -> str:
        """A message's text as it stands in a rendering; templates may trim it."""
        return content.strip()

    def _require_all(self, messages: Sequence[ChatMessage], whole: str) -> tuple[int, ...]:
        """Every message's text is in the rendering, in order; gives those that are there without their blanks."""
        position, trimmed = 0, []
        for index, message in enumerate(messages):
            forms = forms_of_answer(message.content) if message.role == "tool" else (message.content,)
            found, content = next(
                ((place, form) for form in forms if (place := whole.find(self._shown(form), position)) >= 0),
                (-1, message.content),
            )
            if found < 0:
                raise UnreadableRowError("text_not_rendered", f"messages[{index}].content", role=message.role)
            text, near = self._shown(content), position + len(content) + MAX_LEAD
            if text != content and whole.find(content, position, near) < 0:
                trimmed.append(index)
            position = found + len(text)
        return tuple(trimmed)

    def _found(self, talk: Conversation, answers: Sequence[int], whole: str) -> list[Rendered]:
        may_be_alike = len(answers) > 2 and not talk.has_tools
        alike = self._alike(talk, answers, whole) if may_be_alike else None
        if alike is not None:
            return [Rendered(whole[: alike[-1][1]], tuple(alike))]
        if len(answers) > MAX_ANSWERS_APART:
            count, limit = len(answers), MAX_ANSWERS_APART
            raise UnreadableRowError("too_many_answers", "messages", count=count, limit=limit)
        alone = [self._alone(talk, index, whole if index == answers[-1] else None) for index in answers]
        if all(whole.startswith(each.text) for each in alone[:-1]):
            return [Rendered(alone[-1].text, tuple(each.trained[0] for each in alone))]
        return alone

    def _alone(self, talk: Conversation, index: int, own: str | None = None, *, ends: bool = True) -> Rendered:
        """The conversation up to one answer, which is trained; `own` is its text where that is known."""
        if index == 0:
            raise UnreadableRowError("answer_without_prompt", "messages[0].role")
        before = self._text(talk.until(index), generation=True)
        own = self._text(talk.until(index + 1), generation=False) if own is None else own
        if not own.startswith(before):
            raise UnreadableRowError("answer_not_after_prompt", f"messages[{index}].content")
        message = talk.messages[index]
        end_of_text = self._end_of_text(message, own, begin=len(before))
        if end_of_text is None:
            raise UnreadableRowError("text_not_rendered", f"messages[{index}].content", role=message.role)
        if not ends and not message.tool_calls:
            return Rendered(own[:end_of_text], ((len(before), end_of_text),))
        next_turn = self._after_call if message.tool_calls else self._next_turn
        text = self._closed(own, after=end_of_text, next_turn=next_turn)
        if text is None:
            raise UnreadableRowError("no_end_token", f"messages[{index}]")
        end = len(text) if ends or not RESERVED.match(text[-1]) else len(text) - 1
        return Rendered(text[:end], ((len(before), end),))

    def _end_of_text(self, message: ChatMessage, own: str, *, begin: int) -> int | None:
        """Behind the message's text, and not before the name of its last call; None where the text is missing."""
        said = self._shown(message.content)
        place = own.find(said, begin)
        if place < 0:
            return None
        names = [own.rfind(call.name, begin) for call in message.tool_calls[-1:]]
        return max(place + len(said), *names, begin)

    def _closed(self, own: str, *, after: int, next_turn: str) -> str | None:
        """The text through the token that ends the answer; None where there is none."""
        for place in range(after, len(own)):
            if own[place] in self._stops:
                return own[: place + 1]
        own = own.rstrip()
        if RESERVED.search(own, after) and (RESERVED.match(own[-1]) or not next_turn):
            return own
        return own + next_turn if next_turn else None

    def _alike(self, talk: Conversation, answers: Sequence[int], whole: str) -> list[Span] | None:
        """The spans of all answers from those of the first and the last; None where the answers do not lie alike.

        The conversation is rendered once more with a mark around each message. Without its marks it must be the same,
        and the text before and after each answer must be that of the first.
        """
        marked = [structs.replace(each, content=f"{MARK}{each.content}{MARK}") for each in talk.messages]
        pieces = self._text(Conversation(marked), generation=False).split(MARK)
        if len(pieces) != 2 * len(marked) + 1 or "".join(pieces) != whole:
            return None
        first, last = (self._alone(talk, index) for index in (answers[0], answers[-1]))
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
            after = self._text(Conversation(talk), generation=False).partition(MARK)[2].lstrip()
        except TemplateRefusalError:
            return ""
        return after[:1] if after[:1] in self._stops else ""

    def _found_turn_after_call(self) -> str:
        """The same of the turn after a call."""
        if self.tools.call is None:
            return ""
        try:
            text = self._text(Conversation([ASKED, CALLED, ANSWERED], PROBE), generation=False)
        except TemplateRefusalError:
            return ""
        after = text.rpartition(ANSWERED.content)[0].rpartition(PROBE[0].name)[2]
        return next((character for character in after if character in self._stops), "")

    def _found_end(self) -> str:
        try:
            asked = Conversation([ChatMessage("user", "a", 0)])
            last = self.alone(asked, ChatMessage("assistant", "b", 1), ends=True).text[-1]
        except UnreadableRowError:
            return ""
        return last if RESERVED.match(last) else ""


def _refused(refusal: TemplateRefusalError) -> UnreadableRowError:
    return UnreadableRowError("template_refused", "messages", detail=refusal.message[:MAX_DETAIL])

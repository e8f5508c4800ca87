"""Where in a rendered conversation the answers are that a model is to learn.

The template says it itself: with a generation prompt it writes what the model goes on from; without one, the answer and
its end. Each answer is looked for in the conversation as far as it goes, and then in the whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from policies.datasets.chat_rows import ChatMessage
from policies.rendering.base_text import BaseText
from policies.rendering.conversations import Conversation, ConversationWriter, Said, UnreadableRowError, require_plain
from policies.rendering.special_tokens import RESERVED
from policies.rendering.template import TemplateRefusalError
from policies.rendering.tool_forms import ANSWERED, ASKED, CALLED, PROBE
from policies.rendering.tool_texts import Form, first_form, first_lost, first_lost_beside, forms_of_answer, places_of

__all__ = ["AnswerFinder", "Conversation", "Rendered", "RenderedRow", "UnreadableRowError", "require_plain"]

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


class AnswerFinder:
    """Renders conversations for one base model and finds their answers."""

    def __init__(self, base: BaseText) -> None:
        self._stops, self._writer = base.stops, ConversationWriter(base)
        self.roles, self.tools = self._writer.roles, self._writer.tools
        self._next_turn, self._after_call = self._found_next_turn(), self._found_turn_after_call()
        self.end = self._found_end()
        """The character of the token that ends an answer; empty where there is none."""

    def prompt(self, talk: Conversation) -> str:
        """The text up to where the next answer begins; raises `TemplateRefusalError`."""
        return self._writer.text(self._writer.said(talk), generation=True)

    def alone(self, talk: Conversation, answer: ChatMessage, *, ends: bool, requires_all: bool = False) -> Rendered:
        """One answer to a conversation.

        Args:
            requires_all: whether the conversation's texts must be in the rendering too; of tools they must in any case.

        Raises:
            UnreadableRowError: the template refuses the conversation, or would lose some of it.
        """
        said = self._writer.said(Conversation([*talk.messages, answer], talk.tools))
        try:
            if said.has_tools:
                self._require_tools(said)
            own = self._writer.text(said, generation=False)
            if requires_all or said.has_tools:
                self._require_all(said.messages, own)
            return self._alone(said, len(said.messages) - 1, own, ends=ends)
        except TemplateRefusalError as refusal:
            raise _refused(refusal) from None

    def render(self, talk: Conversation) -> RenderedRow:
        """One text with all answers where they stand in the whole as they do alone, else one for each answer.

        Raises:
            UnreadableRowError: the template refuses the conversation, or would lose some of it.
        """
        said = self._writer.said(talk)
        answers = [index for index, each in enumerate(said.messages) if each.role == "assistant" and each.weight]
        if not answers:
            raise UnreadableRowError("nothing_to_train_on", "messages")
        said = said.until(answers[-1] + 1)
        try:
            marked = self._require_tools(said) if said.has_tools else None
            whole = self._writer.text(said, generation=False)
            trimmed = self._require_all(said.messages, whole)
            if len(answers) > 2:
                marked = marked or self._writer.marked(said)
                if spans := self._alike(said, answers, whole, marked):
                    return RenderedRow([Rendered(whole[: spans[-1][1]], tuple(spans))], trimmed)
            return RenderedRow(self._apart(said, answers, whole), trimmed)
        except TemplateRefusalError as refusal:
            raise _refused(refusal) from None

    def _require_tools(self, said: Said) -> str:
        """The rendering with marks, in which everything is that is said of tools."""
        if said.tools and not self.tools.writes_definitions:
            raise UnreadableRowError("tools_not_rendered", "tools")
        for index, message in enumerate(said.messages):
            if message.tool_calls and self.tools.call is None:
                raise UnreadableRowError("tool_call_not_rendered", f"messages[{index}].tool_calls")
        marked = self._writer.marked(said)
        if lost := first_lost(marked, said.messages, said.tools):
            raise UnreadableRowError(*lost)
        if (beside := first_lost_beside(marked, said.messages)) is not None:
            raise UnreadableRowError("text_not_rendered", f"messages[{beside}].content", role="assistant")
        return marked

    def _require_all(self, messages: Sequence[ChatMessage], whole: str) -> tuple[int, ...]:
        """Every message's text is in the rendering, in order; gives those that are there without their blanks."""
        position, trimmed, usual = 0, [], 0
        for index, message in enumerate(messages):
            forms = forms_of_answer(message.content) if message.role == "tool" else (Form.of(message.content),)
            found = first_form(whole, forms, position, usual=usual if message.role == "tool" else 0)
            if found is None:
                raise UnreadableRowError("text_not_rendered", f"messages[{index}].content", role=message.role)
            end, number = found
            near = position + max(len(form.full) for form in forms) + MAX_LEAD
            if forms[number].is_trimmed and not any(whole.find(form.full, position, near) >= 0 for form in forms):
                trimmed.append(index)
            position, usual = end, number if message.role == "tool" else usual
        return tuple(trimmed)

    def _apart(self, said: Said, answers: Sequence[int], whole: str) -> list[Rendered]:
        if len(answers) > MAX_ANSWERS_APART:
            count, limit = len(answers), MAX_ANSWERS_APART
            raise UnreadableRowError("too_many_answers", "messages", count=count, limit=limit)
        alone = [self._alone(said, index, whole if index == answers[-1] else None) for index in answers]
        if all(whole.startswith(each.text) for each in alone[:-1]):
            return [Rendered(alone[-1].text, tuple(each.trained[0] for each in alone))]
        return alone

    def _alone(self, said: Said, index: int, own: str | None = None, *, ends: bool = True) -> Rendered:
        """The conversation up to one answer, which is trained; `own` is its text where that is known."""
        if index == 0:
            raise UnreadableRowError("answer_without_prompt", "messages[0].role")
        before = self._writer.text(said.until(index), generation=True)
        own = self._writer.text(said.until(index + 1), generation=False) if own is None else own
        if not own.startswith(before):
            raise UnreadableRowError("answer_not_after_prompt", f"messages[{index}].content")
        message = said.messages[index]
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
        text = message.content.strip()
        place = own.find(text, begin)
        if place < 0:
            return None
        names = [own.rfind(call.name, begin) for call in message.tool_calls[-1:]]
        return max(place + len(text), *names, begin)

    def _closed(self, own: str, *, after: int, next_turn: str) -> str | None:
        """The text through the token that ends the answer; None where there is none."""
        for place in range(after, len(own)):
            if own[place] in self._stops:
                return own[: place + 1]
        own = own.rstrip()
        if RESERVED.search(own, after) and (RESERVED.match(own[-1]) or not next_turn):
            return own
        return own + next_turn if next_turn else None

    def _alike(self, said: Said, answers: Sequence[int], whole: str, marked: str) -> list[Span] | None:
        """The spans of all answers from those of a few; None where the answers do not lie alike.

        Without its marks the rendering with marks must be the whole. Answers of one kind after messages of one kind
        must have the same text before them, and end at the first token at which generation stops, before the next
        message's text. Of each kind the first, and the last of all, must be what they are alone.
        """
        places = places_of(marked, whole, said.messages)
        if places is None:
            return None
        ends = [begin for begin, _ in places[1:]] + [len(whole)]
        leads: dict[tuple[object, ...], tuple[str, int]] = {}
        spans: list[Span] = []
        for index in answers:
            (_, gap_begin), (begin, end) = places[index - 1], places[index]
            kind, gap = (_kind(said.messages[index - 1]), _kind(said.messages[index])), whole[gap_begin:begin]
            known = leads.get(kind)
            stop = next((place for place in range(end, len(whole)) if whole[place] in self._stops), None)
            if stop is None or stop >= ends[index] or (known is not None and known[0] != gap):
                return None
            if known is None or index == answers[-1]:
                alone = self._alone(said, index, whole if index == answers[-1] else None)
                ((own_begin, own_end),) = alone.trained
                if not whole.startswith(alone.text) or own_end != stop + 1 or own_begin > begin:
                    return None
                known = leads.setdefault(kind, (gap, begin - own_begin))
                if known[1] != begin - own_begin:
                    return None
            spans.append((begin - known[1], stop + 1))
        return spans if all(one[1] <= other[0] for one, other in itertools.pairwise(spans)) else None

    def _found_next_turn(self) -> str:
        """The token by which the template begins the turn after an answer, if generation stops at it; else nothing.

        Some models (GLM) have no token at an answer's end: they stop where they would begin another turn.
        """
        talk = [ChatMessage("user", "a", 0), ChatMessage("assistant", MARK, 1), ChatMessage("user", "b", 0)]
        try:
            after = self._writer.text(self._writer.said(Conversation(talk)), generation=False)
        except TemplateRefusalError:
            return ""
        after = after.partition(MARK)[2].lstrip()
        return after[:1] if after[:1] in self._stops else ""

    def _found_turn_after_call(self) -> str:
        """The same of the turn after a call."""
        if self.tools.call is None:
            return ""
        try:
            said = self._writer.said(Conversation([ASKED, CALLED, ANSWERED], PROBE))
            text = self._writer.text(said, generation=False)
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


def _kind(message: ChatMessage) -> tuple[object, ...]:
    """What a template may write differently before the next message."""
    return message.role, bool(message.content), bool(message.tool_calls), message.name is None


def _refused(refusal: TemplateRefusalError) -> UnreadableRowError:
    return UnreadableRowError("template_refused", "messages", detail=refusal.message[:MAX_DETAIL])

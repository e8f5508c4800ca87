"""Conversations as a base model's chat template writes them, in the roles and forms that it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from policies.datasets.messages import ChatMessage
from policies.datasets.problems import DatasetProblem
from policies.datasets.tools import Tool
from policies.rendering.base_text import BaseText
from policies.rendering.roles import Roles
from policies.rendering.special_tokens import RESERVED
from policies.rendering.template import Message
from policies.rendering.tool_forms import Part, ToolForms, Write
from policies.rendering.tool_texts import marking


class UnreadableRowError(Exception):
    """The template does not render the conversation so that it could be learnt."""

    def __init__(self, code: str, field: str, **details: object) -> None:
        super().__init__(code)
        self.code, self.field, self.details = code, field, details

    def problem(self, line: int, at: str = "") -> DatasetProblem:
        """As a line of a file has it; `at` is the path of the object that holds the messages, with its dot."""
        return DatasetProblem.of(self.code, line, at + self.field, **self.details)


class Conversation(NamedTuple):
    """Messages and the tools that they may call."""

    messages: Sequence[ChatMessage]
    tools: Sequence[Tool] = ()


class Said(NamedTuple):
    """A conversation in the template's roles, with what the template is given of it."""

    messages: Sequence[ChatMessage]
    tools: Sequence[Tool]
    given: Sequence[Message]
    given_tools: Sequence[Message]

    def until(self, end: int) -> Said:
        """With the messages before place `end`."""
        return self._replace(messages=self.messages[:end], given=self.given[:end])

    @property
    def has_tools(self) -> bool:
        return bool(self.tools) or any(each.tool_calls for each in self.messages)


def require_plain(text: str, field: str) -> None:
    """Raises `UnreadableRowError` where the text holds a character that stands for a special token."""
    if not text.isascii() and (found := RESERVED.search(text)):
        raise UnreadableRowError("control_character", field, character=f"U+{ord(found.group()):04X}")


class ConversationWriter:
    """Writes for one base model."""

    def __init__(self, base: BaseText) -> None:
        self._template, self._special = base.template, base.tokenizer.special
        self.roles, self.tools = Roles.of(base.template), ToolForms.of(base.template)

    def said(self, talk: Conversation) -> Said:
        """What the template is to be given; raises `UnreadableRowError` where a text holds what none may."""
        messages = self.roles.fold(talk.messages)
        for index, message in enumerate(messages):
            require_plain(message.content, f"messages[{index}].content")
        return self._said(messages, talk.tools, self._write)

    def text(self, said: Said, *, generation: bool) -> str:
        """With `generation`, up to where the next answer begins; raises `TemplateRefusalError`."""
        rendered = self._template.render(said.given, generation=generation, tools=said.given_tools)
        return self._special.mark(rendered)

    def marked(self, said: Said) -> str:
        """The same with marks around texts, as `tool_texts` reads them."""
        return self.text(self._said(said.messages, said.tools, marking(self._special.hide)), generation=False)

    def _said(self, messages: Sequence[ChatMessage], tools: Sequence[Tool], write: Write) -> Said:
        return Said(
            messages, tools, [self._given(each, write) for each in messages], self.tools.definitions(tools, write)
        )

    def _given(self, message: ChatMessage, write: Write) -> Message:
        if message.tool_calls or message.role == "tool":
            return self.tools.message(message, write)
        return self.roles.plain(message, write(message.content, "content"))

    def _write(self, text: str, _: Part) -> str:
        require_plain(text, "messages")
        return self._special.hide(text)

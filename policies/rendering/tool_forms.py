"""How tools, calls and their answers are handed to a base model's chat template, found by trying it.

Templates are written for what `apply_chat_template` of transformers is given: definitions as OpenAI has them, arguments
as an object, and a tool's answer as a message of role `tool`. Some want it a little otherwise: arguments as text, null
in the place of an empty text, ids of nine characters (Mistral), a description in each definition.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from policies.datasets.messages import ChatMessage
from policies.datasets.tools import Tool, ToolCall
from policies.rendering.template import ChatTemplate, Message, TemplateRefusalError

Json = Any  # Any: JSON of the row, as templates take it
Part = Literal["content", "beside", "offered", "called", "argument", "text"]
"""What a text is: a message's, that of one with calls, a name of an offered or a called function, one in arguments, any
other."""
Write = Callable[[str, Part], str]
"""How a text is written into what the template is given."""
PROBE = (
    Tool("quartz_price", '{"name": "quartz_price", "description": "Meadow.", "parameters": {"type": "object"}}'),
    Tool("zephyr", '{"name": "zephyr"}'),
)
FILLING: dict[str, Json] = {"description": "", "parameters": {"type": "object", "properties": {}}}
ASKED = ChatMessage("user", "Hello?", 0)
CALLED = ChatMessage(
    "assistant", "", 1, (ToolCall("call_x1", "quartz_price", '{"item": "Willow", "count": 4711, "fresh": true}'),)
)
ANSWERED = ChatMessage("tool", "Juniper", 0, (), "call_x1", "quartz_price")
FINALLY = ChatMessage("assistant", "Done.", 1)


class CallForm(NamedTuple):
    """What a template takes for a call."""

    takes_text: bool
    """Of arguments; else it takes the object."""
    empty: str | None
    """The content where the message says nothing beside its calls."""
    has_short_ids: bool
    """Nine letters or digits."""


CALL_FORMS = tuple(
    CallForm(takes_text, empty, has_short_ids)
    for has_short_ids in (False, True)
    for takes_text in (False, True)
    for empty in ("", None)
)


@dataclass(frozen=True)
class ToolForms:
    """What a template does with tools."""

    writes_definitions: bool
    fills_definitions: bool
    """With an empty description and no parameters, where the row has none."""
    call: CallForm | None
    """None where it writes no calls."""
    writes_answers: bool
    """Of role `tool`, after a call."""

    @classmethod
    def of(cls, template: ChatTemplate) -> ToolForms:
        none = cls(writes_definitions=False, fills_definitions=False, call=None, writes_answers=False)
        offering = (replace(none, writes_definitions=True, fills_definitions=fills) for fills in (False, True))
        names = [tool.name for tool in PROBE]
        forms = next((each for each in offering if each._shows(template, (ASKED, FINALLY), names)), none)
        if not forms.writes_definitions:
            return none
        calling = (replace(forms, call=call) for call in CALL_FORMS)
        found = next((each for each in calling if each._shows(template, (ASKED, CALLED), ["Willow", "4711"])), forms)
        talk, words = (ASKED, CALLED, ANSWERED, FINALLY), ["Willow", "Juniper", "Done."]
        return replace(found, writes_answers=found.call is not None and found._shows(template, talk, words))

    def _shows(self, template: ChatTemplate, messages: Sequence[ChatMessage], words: Sequence[str]) -> bool:
        try:
            rendered = self._rendered(template, messages)
        except TemplateRefusalError:
            return False
        return all(word in rendered for word in words)

    def _rendered(self, template: ChatTemplate, messages: Sequence[ChatMessage]) -> str:
        def as_it_is(text: str, _: Part) -> str:
            return text

        said = [
            self.message(each, as_it_is) if each.tool_calls or each.role == "tool" else plain(each) for each in messages
        ]
        return template.render(said, generation=False, tools=self.definitions(PROBE, as_it_is))

    def definitions(self, tools: Sequence[Tool], write: Write) -> list[Message]:
        """As the template takes them."""
        return [{"type": "function", "function": self._definition(tool, write)} for tool in tools]

    def _definition(self, tool: Tool, write: Write) -> dict[str, Json]:
        said: dict[str, Json] = written(json.loads(tool.definition), "text", write)
        filled = {**FILLING, **said} if self.fills_definitions else {}
        return said | filled | {"name": write(tool.name, "offered")}

    def message(self, message: ChatMessage, write: Write) -> Message:
        """A message that calls tools, or the answer of one."""
        if message.role == "tool":
            return {
                "role": "tool",
                "content": write(message.content, "content"),
                "tool_call_id": self._id(message.tool_call_id or "", write),
                "name": message.name,
            }
        calls = [self._call(call, write) for call in message.tool_calls]
        content = write(message.content, "beside") if message.content or self.call is None else self.call.empty
        return {"role": message.role, "content": content, "tool_calls": calls}

    def _call(self, call: ToolCall, write: Write) -> Message:
        arguments = written(json.loads(call.arguments), "argument", write)
        if self.call is not None and self.call.takes_text:
            arguments = json.dumps(arguments, ensure_ascii=False)
        function = {"name": write(call.name, "called"), "arguments": arguments}
        return {"id": self._id(call.id, write), "type": "function", "function": function}

    def _id(self, number: str, write: Write) -> str:
        if self.call is None or not self.call.has_short_ids:
            return write(number, "text")
        return hashlib.sha256(number.encode()).hexdigest()[:9]


def plain(message: ChatMessage) -> Message:
    return {"role": message.role, "content": message.content}


def written(value: Json, part: Part, write: Write) -> Json:
    """A JSON value with all its texts written; what is read into rows is not nested deeply."""
    if isinstance(value, str):
        return write(value, part)
    if isinstance(value, dict):
        return {write(key, part): written(inner, part, write) for key, inner in value.items()}
    if isinstance(value, list):
        return [written(inner, part, write) for inner in value]
    return value

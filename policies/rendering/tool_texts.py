"""Whether a rendering has all that a row says of tools: each offered name, each call, each text in its arguments.

The conversation is rendered once more with a mark on both sides of each of these, so that nothing that the user says
can be taken for them. A template may write a text as it is, as in JSON, or as in Python, and in an order of its own.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from policies.datasets.messages import ChatMessage
from policies.datasets.tools import Tool
from policies.rendering.tool_forms import Part, written

MARKS: dict[Part, str] = {"offered": "\ufdd1", "called": "\ufdd2", "argument": "\ufdd3"}


class Lost(NamedTuple):
    """What is not in a rendering."""

    code: str
    field: str


def marking(hide: Callable[[str], str]) -> Callable[[str, Part], str]:
    """Writes texts with their marks; `hide` is what is done with each of them anyway."""

    def write(text: str, part: Part) -> str:
        mark = MARKS.get(part, "")
        return f"{mark}{hide(text)}{mark}"

    return write


def first_lost(marked: str, messages: Sequence[ChatMessage], tools: Sequence[Tool]) -> Lost | None:
    """The first of what is not in the rendering with marks."""
    offered = set(_pieces(marked, "offered"))
    for index, tool in enumerate(tools):
        if tool.name not in offered:
            return Lost("tools_not_rendered", f"tools[{index}]")
    called, arguments = Counter(_pieces(marked, "called")), set(_pieces(marked, "argument"))
    for index, message in enumerate(messages):
        for number, call in enumerate(message.tool_calls):
            called[call.name] -= 1
            if called[call.name] < 0 or not all(arguments & _forms(text) for text in _texts(call.arguments)):
                return Lost("tool_call_not_rendered", f"messages[{index}].tool_calls[{number}]")
    return None


def forms_of_answer(text: str) -> tuple[str, ...]:
    """How a template may write a tool's answer."""
    in_json = json.dumps(text, ensure_ascii=False)[1:-1]
    return (text,) if in_json == text else (text, in_json)


def _pieces(marked: str, part: Part) -> list[str]:
    return marked.split(MARKS[part])[1::2]


def _texts(arguments: str) -> list[str]:
    found: list[str] = []

    def write(text: str, _: Part) -> str:
        found.append(text)
        return text

    written(json.loads(arguments), "argument", write)
    return found


def _forms(text: str) -> set[str]:
    return {text, json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1], repr(text)[1:-1]}

"""Whether a rendering has all that a row says of tools: each offered name, each call, its texts and those beside it.

The conversation is rendered once more with a mark on both sides of each of these, so that nothing that the user says
can be taken for them. A template may write a text as it is, as in JSON, or as in Python between single quotes, and may
have an order of its own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from policies.datasets.messages import ChatMessage
from policies.datasets.tools import Tool
from policies.rendering.tool_forms import Part, written

MARKS: dict[Part, str] = {
    "content": "\ufdd0",
    "offered": "\ufdd1",
    "called": "\ufdd2",
    "argument": "\ufdd3",
    "beside": "\ufdd4",
}
Place = tuple[int, int]
"""From which character to which."""
_IN_SINGLE_QUOTES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"})
_MARK = re.compile("[\ufdd0-\ufdd4]")


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


def first_lost_beside(marked: str, messages: Sequence[ChatMessage]) -> int | None:
    """Which message is the first whose text beside its calls is not in the rendering with marks.

    Such a text ends before a mark of its own; a template that takes thoughts apart from the rest drops the other one.
    """
    ended = iter(marked.split(MARKS["beside"])[:-1])
    for index, message in enumerate(messages):
        text = message.content.strip()
        if message.tool_calls and text and not any(each.rstrip().endswith(text) for each in ended):
            return index
    return None


def places_of(marked: str, whole: str, messages: Sequence[ChatMessage]) -> list[Place] | None:
    """Where in the rendering each message lies, its calls' names included.

    None where the marks change more than that they are there, or where it can't be told.
    """
    if _MARK.search(whole) or _MARK.sub("", marked) != whole:
        return None
    contents, names = _marked_places(marked, "content", "beside"), _marked_places(marked, "called")
    has_content = [bool(each.content) or not each.tool_calls for each in messages]
    if len(contents) != sum(has_content):
        return None
    own = iter(contents)
    places: list[Place | None] = [next(own) if has else None for has in has_content]
    found: list[Place] = []
    next_name = 0
    for index, message in enumerate(messages):
        place = places[index]
        if message.tool_calls:
            begin = found[-1][1] if found else 0
            after = next((each[0] for each in places[index + 1 :] if each is not None), len(whole))
            while next_name < len(names) and names[next_name][0] < begin:
                next_name += 1
            called = names[next_name : next_name + len(message.tool_calls)]
            written = [whole[start:end] for start, end in called]
            if written != [call.name for call in message.tool_calls] or called[-1][1] > after:
                return None
            parts = [*called, *([place] if place is not None else [])]
            place = min(start for start, _ in parts), max(end for _, end in parts)
        if place is None:
            return None
        found.append(place)
    return found


def _marked_places(marked: str, *parts: Part) -> list[Place]:
    """Of what stands between marks of some kinds, counted without all marks."""
    found: list[Place] = []
    own = {MARKS[part] for part in parts}
    opened: int | None = None
    for n_before, mark in enumerate(_MARK.finditer(marked)):
        if mark.group() in own:
            place = mark.start() - n_before
            if opened is None:
                opened = place
            else:
                found.append((opened, place))
                opened = None
    return found


class Form(NamedTuple):
    """How a message's text may stand in a rendering; templates may trim it."""

    shown: str
    full: str
    """With the blanks around it."""

    @classmethod
    def of(cls, text: str) -> Form:
        return cls(text.strip(), text)

    @property
    def is_trimmed(self) -> bool:
        return self.shown != self.full


def forms_of_answer(text: str) -> tuple[Form, ...]:
    """How a template may write a tool's answer: as it is, or as JSON."""
    full = _in_json(text)
    return Form.of(text), Form(full, full), Form(_in_json(text.strip()), full)


def first_form(whole: str, forms: Sequence[Form], position: int, *, usual: int) -> tuple[int, int] | None:
    """Where the form ends that ends first from a position on, and which it is; None where there is none.

    Args:
        usual: the form that is looked for first. Others are looked for before it only, so that many answers in one
            form cost one pass.
    """
    best: tuple[int, int] | None = None
    for number in sorted(range(len(forms)), key=lambda each: each != usual):
        shown = forms[number].shown
        place = whole.find(shown, position, len(whole) if best is None else best[0])
        if place >= 0 and (best is None or place + len(shown) < best[0]):
            best = place + len(shown), number
    return best


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
    quoted = text.translate(_IN_SINGLE_QUOTES)
    return {text, _in_json(text), quoted, quoted.replace("\t", "\\t")}


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]

"""Tools of other makers' rows in the shape of OpenAI's: definitions beside a conversation, and calls said as JSON."""

from __future__ import annotations

import json

from policies.datasets.conversion.errors import RowNotConvertedError
from policies.datasets.row_findings import Json, is_list
from policies.datasets.strict_json import decode_text

Row = dict[str, Json]
CALLS = frozenset({"function_call", "tool_call"})
"""Who says a call in a conversation of turns."""
ANSWERS = frozenset({"observation", "tool", "tool_response", "function"})


def definitions(value: Json) -> list[Json]:
    """The list of tools, which may be its JSON; what is no definition is left for the check of the row."""
    return [
        {"type": "function", "function": each} if isinstance(each, dict) and "function" not in each else each
        for each in _listed(_parsed(value, "tools"))
    ]


class ToolTurns:
    """Makes messages of the turns in which tools are called and answer; each call is named by its place."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._n_calls = 0

    def call(self, text: str, at: str) -> Row:
        """Of a turn that is the JSON of a call, or of a list of them."""
        calls: list[Row] = []
        for each in _listed(_parsed(text, at)):
            if not isinstance(each, dict) or {*each} != {"name", "arguments"}:
                raise RowNotConvertedError(f"{at} is not the JSON of calls, each with name and arguments")
            self._n_calls += 1
            calls.append({"id": f"call_{self._n_calls}", "type": "function", "function": _with_text(each)})
        self._open = [call["id"] for call in calls]
        return {"role": "assistant", "content": None, "tool_calls": calls}

    def answer(self, text: str, at: str) -> Row:
        """To the calls before it, one after the other."""
        if not self._open:
            raise RowNotConvertedError(f"{at} answers no call of the turn before")
        return {"role": "tool", "tool_call_id": self._open.pop(0), "content": text}


def _parsed(value: Json, at: str) -> Json:
    if not isinstance(value, str):
        return value
    read = decode_text(value, 0)
    if isinstance(read, tuple):
        raise RowNotConvertedError(f"{at} is no JSON that can be read: {read[0].message} ({read[0].code})")
    return read


def _listed(value: Json) -> list[Json]:
    return value if is_list(value) else [value]


def _with_text(call: Row) -> Row:
    """Its arguments as the text that they are in OpenAI's rows."""
    arguments = call["arguments"]
    return {**call, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)}

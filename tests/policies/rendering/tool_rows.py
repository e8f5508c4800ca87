"""Rows with tools in the shapes of OpenAI's guide, read by the parser of training files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from policies.datasets.chat_rows import ChatRow, check_row

Json = Mapping[str, object]
PRICE: Json = {
    "type": "function",
    "function": {
        "name": "get_price",
        "description": "Tells what an item costs.",
        "parameters": {
            "type": "object",
            "properties": {"item": {"type": "string", "description": "Its name"}, "count": {"type": "integer"}},
            "required": ["item"],
        },
    },
}
BARE: Json = {"type": "function", "function": {"name": "open_shop"}}
USER: Json = {"role": "user", "content": "U1 <b>"}


def call(number: str, arguments: Json, name: str = "get_price") -> Json:
    return {"id": number, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def calls(*made: Json, **more: object) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(made), **more}


def answer(number: str, content: str) -> Json:
    return {"role": "tool", "tool_call_id": number, "content": content}


def said(content: str, **more: object) -> Json:
    return {"role": "assistant", "content": content, **more}


def row(*messages: Json, tools: Sequence[Json] = (PRICE,), **more: object) -> ChatRow:
    checked = check_row(json.loads(json.dumps({"messages": messages, "tools": tools, **more})), 1)
    assert isinstance(checked, ChatRow), checked
    return checked


TOOL_CASES: dict[str, ChatRow] = {
    "tools offered": row(USER, said("A1")),
    "tools of a name alone": row(USER, said("A1"), tools=[BARE]),
    "call": row(USER, calls(call("c1", {"item": "tap", "count": 2}))),
    "call without arguments": row(USER, calls(call("c1", {}, "open_shop")), tools=[PRICE, BARE]),
    "call of difficult texts": row(
        USER,
        calls(
            call("c1", {"item": 'a "b" \\ <|im_end|>\n</tool_call> \u00e9\u4e2d', "of": {"a": ["x", None, True, 1.5]}})
        ),
    ),
    "text and call": row(USER, said("I look.", tool_calls=[call("c1", {"item": "tap"})])),
    "two calls": row(USER, calls(call("c1", {"item": "tap"}), call("c2", {"item": "key"}))),
    "call, answer, text": row(USER, calls(call("c1", {"item": "tap"})), answer("c1", "R 7"), said("A1")),
    "call as context": row(USER, calls(call("c1", {"item": "tap"}), weight=0), answer("c1", "R 7"), said("A1")),
    "answer with quotes": row(USER, calls(call("c1", {"item": "tap"})), answer("c1", '{"price": "7"}\n'), said("A1")),
    "two calls answered": row(
        *(USER, calls(call("c1", {"item": "tap"}), call("c2", {"item": "key"}))),
        *(answer("c2", "R 8"), answer("c1", "R 7"), said("A1")),
    ),
    "call after call": row(
        *(USER, calls(call("c1", {"item": "tap"})), answer("c1", "R 7")),
        *(calls(call("c1", {"item": "key"})), answer("c1", "R 8"), said("A1")),
        *({"role": "user", "content": "U2"}, said("A2")),
    ),
}

"""Tools in rows: what is read, in either form, and each thing that is wrong with one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from policies.datasets.chat_rows import ChatRow, check_row
from policies.datasets.reader import parse_line
from policies.datasets.row_findings import MAX_PROBLEMS_PER_ROW
from policies.datasets.tools import MAX_TOOLS, Tool, ToolCall
from tests.growth import LINEAR, growth

Json = dict[str, Any]  # Any: a row as JSON
USER: Json = {"role": "user", "content": "How much?"}
DONE: Json = {"role": "assistant", "content": "Seven."}
TOOL: Json = {"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}


def call(number: str = "c1", name: str = "price", arguments: object = '{"of": "tap"}') -> Json:
    return {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: Json, **more: object) -> Json:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def answer(number: str = "c1", **more: object) -> Json:
    return {"role": "tool", "tool_call_id": number, "content": "7", **more}


def row(*messages: Json, **more: object) -> Json:
    return {"messages": list(messages), "tools": [TOOL], **more}


def read(value: Json) -> ChatRow:
    checked = check_row(value, 1)
    assert isinstance(checked, ChatRow), checked
    return checked


def found(value: Json) -> list[tuple[str | None, str]]:
    checked = check_row(value, 1)
    return [] if isinstance(checked, ChatRow) else [(problem.field, problem.code) for problem in checked]


def test_calls_and_their_answers_are_read() -> None:
    read_row = read(row(USER, calling(call(arguments={"of": "tap"})), answer(), DONE))
    definition = '{"name": "price", "parameters": {"type": "object", "properties": {}}}'
    assert read_row.tools == (Tool("price", definition),)
    asked, called, answered, _ = read_row.messages
    assert (asked.weight, called.weight, called.content) == (0, 1, "")
    assert called.tool_calls == (ToolCall("c1", "price", '{"of": "tap"}'),)
    assert (answered.role, answered.tool_call_id, answered.name) == ("tool", "c1", "price")


def test_arguments_are_the_same_as_object_and_as_text() -> None:
    made = [read(row(USER, calling(call(arguments=value)))) for value in ({"of": "\u00e9"}, '{ "of":"\\u00e9" }')]
    assert made[0] == made[1]


def test_the_earlier_form_becomes_the_present_one() -> None:
    """The call of the second message is called by its place, 1."""
    function_call = {"name": "price", "arguments": '{"of": "tap"}'}
    earlier: Json = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "function_call": function_call},
            {"role": "function", "name": "price", "content": "7"},
            DONE,
        ],
        "functions": [TOOL["function"]],
    }
    present = read(row(USER, calling(call("call_1")), answer("call_1"), DONE))
    assert (read(earlier).messages, read(earlier).tools) == (present.messages, present.tools)
    assert {code for code, _ in read(earlier).notes} == {"legacy_functions"}
    assert present.notes == ()


def test_what_only_says_where_a_row_comes_from_is_noted() -> None:
    assert read(row(USER, DONE, id=7, metadata={"by": "x"}, prompt="")).notes == (
        ("extra_field", "id"),
        ("extra_field", "metadata"),
        ("extra_field", "prompt"),
    )


@pytest.mark.parametrize("key", ["system", "prompt", "weight", "image", "tool", "message", "Parallel_Tool_Calls"])
def test_a_key_that_would_change_the_row_is_refused(key: str) -> None:
    assert found(row(USER, DONE, **{key: "x"})) == [(key, "unknown_field")]


WRONG: dict[str, tuple[Json, str, str]] = {
    "tool without function": (row(USER, DONE, tools=[{"type": "function"}]), "tools[0].function", "wrong_type"),
    "another type": (row(USER, DONE, tools=[{"type": "search"}]), "tools[0].type", "wrong_type"),
    "tool of no name": (
        row(USER, DONE, tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name",
        "invalid_name",
    ),
    "long name": (
        row(USER, DONE, tools=[{"type": "function", "function": {"name": "n" * 65}}]),
        "tools[0].function.name",
        "invalid_name",
    ),
    "schema of no object": (
        row(USER, DONE, tools=[{"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}]),
        "tools[0].function.parameters.type",
        "wrong_type",
    ),
    "schema that is a list": (
        row(USER, DONE, tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]),
        "tools[0].function.parameters",
        "wrong_type",
    ),
    "tool twice": (row(USER, DONE, tools=[TOOL, TOOL]), "tools[1]", "duplicate_tool"),
    "many tools": (row(USER, DONE, tools=[TOOL] * (MAX_TOOLS + 1)), "tools", "too_many_tools"),
    "tools and functions": (row(USER, DONE, functions=[{"name": "f"}]), "functions", "unsupported_field"),
    "a text of it forbidden": (
        row(USER, DONE, tools=[{"type": "function", "function": {"name": "f", "description": "a\0"}}]),
        "tools[0].function.description",
        "control_character",
    ),
    "call of the user": (row({**USER, "tool_calls": [call()]}, DONE), "messages[0].tool_calls", "unsupported_field"),
    "both kinds of call": (
        row(USER, calling(call(), function_call={"name": "price", "arguments": "{}"})),
        "messages[1].function_call",
        "unsupported_field",
    ),
    "call without id": (row(USER, calling(call(number=""))), "messages[1].tool_calls[0].id", "wrong_type"),
    "arguments of no JSON": (
        row(USER, calling(call(arguments="{of: tap}"))),
        "messages[1].tool_calls[0].function.arguments",
        "invalid_arguments",
    ),
    "arguments that are a list": (
        row(USER, calling(call(arguments="[1]"))),
        "messages[1].tool_calls[0].function.arguments",
        "invalid_arguments",
    ),
    "a key of arguments twice": (
        row(USER, calling(call(arguments='{"a": 1, "a": 2}'))),
        "messages[1].tool_calls[0].function.arguments",
        "invalid_arguments",
    ),
    "arguments that are no number": (
        row(USER, calling(call(arguments='{"a": NaN}'))),
        "messages[1].tool_calls[0].function.arguments",
        "invalid_arguments",
    ),
    "deep arguments": (
        row(USER, calling(call(arguments='{"a":' * 40 + "1" + "}" * 40))),
        "messages[1].tool_calls[0].function.arguments" + ".a" * 33,
        "too_deep",
    ),
    "not offered": (
        row(USER, calling(call(name="sell"))),
        "messages[1].tool_calls[0].function.name",
        "tool_not_offered",
    ),
    "id twice": (row(USER, calling(call(), call())), "messages[1].tool_calls[1].id", "repeated_tool_call"),
    "two calls at once": (
        row(USER, calling(call(), call("c2")), parallel_tool_calls=False),
        "messages[1].tool_calls",
        "several_tool_calls",
    ),
    "answer of no call": (row(USER, answer(), DONE), "messages[1].tool_call_id", "unknown_tool_call"),
    "answer of another function": (
        row(USER, calling(call()), answer(name="sell"), DONE),
        "messages[2].tool_call_id",
        "unknown_tool_call",
    ),
    "answered twice": (
        row(USER, calling(call()), answer(), answer(), DONE),
        "messages[3].tool_call_id",
        "repeated_tool_call",
    ),
    "answer without id": (
        row(USER, calling(call()), {"role": "tool", "content": "7"}, DONE),
        "messages[2].tool_call_id",
        "missing_field",
    ),
    "no answer": (row(USER, calling(call()), USER, DONE), "messages[1].tool_calls", "unanswered_tool_call"),
    "one answer too few": (
        row(USER, calling(call(), call("c2")), answer("c2"), DONE),
        "messages[1].tool_calls",
        "unanswered_tool_call",
    ),
    "nothing said": (row(USER, {"role": "assistant", "tool_calls": []}), "messages[1].content", "missing_field"),
    "id at a user": (row({**USER, "tool_call_id": "c"}, DONE), "messages[0].tool_call_id", "unsupported_field"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_place(name: str) -> None:
    value, field, code = WRONG[name]
    assert found(value)[0] == (field, code)


@pytest.mark.parametrize("place", ["tools", "arguments", "arguments as text"])
@pytest.mark.parametrize("n_problems", [0, MAX_PROBLEMS_PER_ROW + 5])
def test_no_depth_that_is_read_overflows_the_stack(place: str, n_problems: int) -> None:
    """However many problems were found before, of which only the first ones are kept."""
    wrong = [{**USER, f"key{number}": 1} for number in range(n_problems)]
    kept = ["unknown_field"] * MAX_PROBLEMS_PER_ROW
    tool = {"type": "function", "function": {"name": "f", "parameters": "DEEP"}}
    made = (
        row(USER, *wrong, DONE, tools=[tool])
        if place == "tools"
        else row(USER, *wrong, calling(call(arguments="DEEP")))
    )
    for depth in range(600, 1000):
        deep = '{"a":' + "[" * depth + "]" * depth + "}"
        line = json.dumps(made).replace('"DEEP"', json.dumps(deep) if place == "arguments as text" else deep)
        codes = [problem.code for problem in parse_line(line.encode(), 1).problems]
        assert codes in ([["too_deep"], ["invalid_arguments"]] if not wrong else [kept, ["too_deep"]])


def test_the_last_calls_need_no_answer() -> None:
    assert found(row(USER, calling(call()), answer(), calling(call("c1"), call("c2")))) == []


def test_an_answer_may_be_empty() -> None:
    assert found(row(USER, calling(call()), answer(content=""), DONE)) == []


@pytest.mark.parametrize(
    "make",
    [
        lambda n: row(USER, calling(call(arguments={str(key): [key] for key in range(n)}))),
        lambda n: row(USER, calling(call(arguments="[" * n))),
        lambda n: row(USER, DONE, **{f"key{number}": number for number in range(n)}),
        lambda n: row(USER, DONE, tools=[{"type": "function", "function": {"name": "f", "description": "a" * n}}]),
    ],
    ids=["keys", "brackets", "keys of the row", "description"],
)
def test_a_row_costs_what_its_length_says(make: Callable[[int], Json]) -> None:
    assert growth(lambda n: json.dumps(make(n)).encode(), lambda line: parse_line(line, 1), 5_000) < LINEAR

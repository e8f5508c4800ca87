"""Preference rows: what is accepted, and each thing that is wrong with one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from policies.datasets.reader import (
    ChatMessage,
    ChatRow,
    Line,
    PreferenceRow,
    iter_any_rows,
    read_preferences,
    read_rows,
)
from policies.datasets.row_findings import Json
from policies.datasets.tools import Tool, ToolCall
from policies.errors import DatasetError

USER = {"role": "user", "content": "Hi"}
BETTER = {"role": "assistant", "content": "Hello"}
WORSE = {"role": "assistant", "content": "No"}
TOOL = {"type": "function", "function": {"name": "f"}}
CALLING: dict[str, Json] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


def row(**changes: Json) -> dict[str, Json]:
    """A sound row with some fields changed; None takes a field away."""
    sound: dict[str, Json] = {
        "input": {"messages": [USER]},
        "preferred_output": [BETTER],
        "non_preferred_output": [WORSE],
    }
    return {name: value for name, value in (sound | changes).items() if value is not None}


def parse(value: Json) -> Line[ChatRow | PreferenceRow]:
    (line,) = iter_any_rows(io.BytesIO(json.dumps(value).encode()))
    return line


def found(value: Json) -> list[tuple[str | None, str]]:
    """Field and code of every problem."""
    line = parse(value)
    assert (line.row is None) == bool(line.problems)
    return [(problem.field, problem.code) for problem in line.problems]


def test_row_is_typed() -> None:
    messages = [{"role": "system", "content": "Be kind."}, USER, BETTER, USER]
    assert parse(row(input={"messages": messages})).row == PreferenceRow(
        (
            ChatMessage("system", "Be kind.", 0),
            ChatMessage("user", "Hi", 0),
            ChatMessage("assistant", "Hello", 0),
            ChatMessage("user", "Hi", 0),
        ),
        preferred="Hello",
        non_preferred="No",
    )


def test_each_answer_ends_a_conversation_and_alone_has_a_weight() -> None:
    parsed = parse(row(input={"messages": [USER, BETTER, USER]})).row
    assert isinstance(parsed, PreferenceRow)
    for conversation, answer in ((parsed.with_preferred(), "Hello"), (parsed.with_non_preferred(), "No")):
        assert [message.weight for message in conversation.messages] == [0, 0, 0, 1]
        assert conversation.messages[-1].content == answer


def test_texts_come_with_their_paths() -> None:
    parsed = parse(row()).row
    assert parsed is not None
    assert list(parsed.texts()) == [
        ("input.messages[0].content", "Hi"),
        ("preferred_output[0].content", "Hello"),
        ("non_preferred_output[0].content", "No"),
    ]


def test_the_spelling_of_openais_reference_is_read_too() -> None:
    other = {"input": {"messages": [USER]}, "preferred_completion": [BETTER], "non_preferred_completion": [WORSE]}
    assert parse(other).row == parse(row()).row


def test_tools_are_kept() -> None:
    parsed = parse(row(input={"messages": [USER], "tools": [TOOL], "parallel_tool_calls": True})).row
    assert parsed is not None
    assert (parsed.tools, parsed.parallel_tool_calls) == ((Tool("f", '{"name": "f"}'),), True)


def test_an_answer_may_call_a_tool() -> None:
    parsed = parse(row(input={"messages": [USER], "tools": [TOOL]}, non_preferred_output=[CALLING])).row
    assert isinstance(parsed, PreferenceRow)
    assert (parsed.non_preferred, parsed.non_preferred_calls) == ("", (ToolCall("c", "f", "{}"),))
    assert ("non_preferred_output[0].tool_calls[0].function.arguments", "{}") in list(parsed.texts())
    assert parsed.with_non_preferred().messages[-1].tool_calls == parsed.non_preferred_calls


def test_answers_that_differ_in_the_ids_of_calls_alone_are_equal() -> None:
    calls = [{**CALLING, "tool_calls": [{**call, "id": number}]} for call in CALLING["tool_calls"] for number in "ab"]
    both = row(input={"messages": [USER], "tools": [TOOL]}, preferred_output=calls[:1], non_preferred_output=calls[1:])
    assert found(both) == [("non_preferred_output", "equal_outputs")]


@pytest.mark.parametrize("field", ["preferred_output", "non_preferred_output", "non_preferred_completion"])
def test_the_name_of_an_answer_is_told(field: str) -> None:
    sound = row(**({"non_preferred_output": None} if field.startswith("non") else {}))
    parsed = parse({**sound, field: [{**WORSE, "content": "Well", "name": "Bob"}]}).row
    assert parsed is not None
    assert parsed.notes == (("name_not_rendered", f"{field}[0].name"),)


def test_the_input_may_end_with_the_answer_of_a_tool() -> None:
    answer = {"role": "tool", "tool_call_id": "c", "content": "7"}
    assert found(row(input={"messages": [USER, CALLING, answer], "tools": [TOOL]})) == []
    assert found(row(input={"messages": [USER, answer], "tools": [TOOL]})) == [
        ("input.messages[1].tool_call_id", "unknown_tool_call")
    ]


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        (row(input=None), [("input", "missing_field")]),
        (row(preferred_output=None), [("preferred_output", "missing_field")]),
        (row(non_preferred_output=None), [("non_preferred_output", "missing_field")]),
        (row(weight=1), [("weight", "unknown_field")]),
        (row(tools=[TOOL]), [("tools", "unknown_field")]),
        (row(preferred_completion=[BETTER]), [("preferred_completion", "unknown_field")]),
        (row(input="Hi"), [("input", "wrong_type")]),
        (row(input={}), [("input.messages", "missing_field")]),
        (row(input={"messages": []}), [("input.messages", "empty_messages")]),
        (row(input={"messages": [USER], "note": 1}), [("input.note", "unknown_field")]),
        (row(input={"messages": [USER], "tools": "all"}), [("input.tools", "wrong_type")]),
        (row(input={"messages": [{**USER, "weight": 0}]}), [("input.messages[0].weight", "unknown_field")]),
        (row(input={"messages": [{**USER, "role": "owner"}]}), [("input.messages[0].role", "unknown_role")]),
        (row(input={"messages": [{**USER, "content": " "}]}), [("input.messages[0].content", "empty_content")]),
        (row(input={"messages": [USER, BETTER]}), [("input.messages[1].role", "last_message_not_user")]),
        (row(preferred_output=BETTER), [("preferred_output", "wrong_type")]),
        (row(preferred_output=[]), [("preferred_output", "not_one_message")]),
        (row(preferred_output=[BETTER, WORSE]), [("preferred_output", "not_one_message")]),
        (row(preferred_output=["Hello"]), [("preferred_output[0]", "wrong_type")]),
        (row(preferred_output=[USER]), [("preferred_output[0].role", "output_not_assistant")]),
        (row(preferred_output=[{**BETTER, "content": ""}]), [("preferred_output[0].content", "empty_content")]),
        (row(preferred_output=[{**BETTER, "weight": 1}]), [("preferred_output[0].weight", "unknown_field")]),
        (
            row(preferred_output=[{**BETTER, "tool_calls": [{}]}]),
            [
                ("preferred_output[0].tool_calls[0].id", "wrong_type"),
            ],
        ),
        (row(preferred_output=[CALLING]), [("preferred_output[0].tool_calls[0].function.name", "tool_not_offered")]),
        (row(non_preferred_output=[BETTER]), [("non_preferred_output", "equal_outputs")]),
    ],
)
def test_what_is_wrong_is_named(value: Json, problems: list[tuple[str, str]]) -> None:
    assert found(value) == problems


def test_answers_that_differ_in_outer_blanks_only_are_equal() -> None:
    assert found(row(non_preferred_output=[{**BETTER, "content": " Hello\n"}])) == [
        ("non_preferred_output", "equal_outputs")
    ]


def test_all_problems_of_a_row_are_found_at_once() -> None:
    codes = [code for _, code in found(row(input={"messages": []}, preferred_output=[], non_preferred_output=[USER]))]
    assert codes == ["empty_messages", "not_one_message", "output_not_assistant"]


def test_what_looks_like_a_chat_row_is_judged_as_one() -> None:
    assert found({"messages": [USER, BETTER], "input": {"x": 1}}) == [("input", "unknown_field")]


def test_rows_of_the_other_kind_are_none(tmp_path: Path) -> None:
    chat, preferences = tmp_path / "chat.jsonl", tmp_path / "preferences.jsonl"
    chat.write_text(json.dumps({"messages": [USER, BETTER]}))
    preferences.write_text(json.dumps(row()))
    assert len(read_preferences(preferences)) == 1
    with pytest.raises(DatasetError, match="line 1"):
        read_preferences(chat)
    with pytest.raises(DatasetError, match="line 1"):
        read_rows(preferences)

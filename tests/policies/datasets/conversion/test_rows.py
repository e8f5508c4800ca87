"""One row of another shape → one of ours, and what keeps a row from it."""

from __future__ import annotations

import pytest

from policies.datasets.chat_rows import Json
from policies.datasets.conversion.errors import RowNotConvertedError
from policies.datasets.conversion.rows import convert_row
from policies.datasets.shapes import Shape


def said(role: str, content: str) -> dict[str, Json]:
    return {"role": role, "content": content}


SYSTEM, USER, BETTER, WORSE = (
    said("system", "Be kind."),
    said("user", "My tap drips."),
    said("assistant", "Close the valve."),
    said("assistant", "Ignore it."),
)
CHAT = {"messages": [USER, BETTER]}
CHAT_WITH_SYSTEM = {"messages": [SYSTEM, USER, BETTER]}
PREFERENCE = {"input": {"messages": [USER]}, "preferred_output": [BETTER], "non_preferred_output": [WORSE]}
HUMAN, GPT = {"from": "human", "value": "My tap drips."}, {"from": "gpt", "value": "Close the valve."}
ASKED = {"role": "user", "parts": [{"text": "My tap "}, {"text": "drips."}]}
ANSWERED = {"role": "model", "parts": [{"text": "Close the valve."}]}
TEXTS = {"prompt": "My tap drips.", "chosen": "Close the valve.", "rejected": "Ignore it."}
MOVED = "system prompt moved into a system message"
TOOL = {"type": "function", "function": {"name": "f"}}
FUNCTIONS_UNSET = "field functions left out"
SHARED = "beginning shared by chosen and rejected made the input"

CONVERTED: dict[str, tuple[Shape | None, Json, Json, list[str]]] = {
    "texts": (Shape.PROMPT_COMPLETION, {"prompt": USER["content"], "completion": BETTER["content"]}, CHAT, []),
    "blanks": (
        Shape.PROMPT_COMPLETION,
        {"prompt": "My tap drips.\n\n", "completion": " Close the valve."},
        CHAT,
        ["blanks around prompts dropped", "blanks around completions dropped"],
    ),
    "messages, of which only the completion is trained": (
        Shape.PROMPT_COMPLETION,
        {"prompt": [USER, WORSE, USER], "completion": [BETTER]},
        {"messages": [USER, {**WORSE, "weight": 0}, USER, BETTER]},
        [],
    ),
    "instruction": (Shape.ALPACA, {"instruction": USER["content"], "output": BETTER["content"]}, CHAT, []),
    "blank input": (
        Shape.ALPACA,
        {"instruction": USER["content"], "input": " ", "output": BETTER["content"], "id": 7},
        CHAT,
        ["blank input dropped", "field id left out"],
    ),
    "input": (
        Shape.ALPACA,
        {"instruction": "Translate.", "input": "Hahn", "output": "Tap", "system": "Be kind."},
        {"messages": [SYSTEM, said("user", "Translate.\n\nHahn"), said("assistant", "Tap")]},
        [MOVED, "input written below its instruction"],
    ),
    "history": (
        Shape.ALPACA,
        {"instruction": "My tap drips.", "output": "Close the valve.", "history": [["Hi", "Hello"]]},
        {"messages": [said("user", "Hi"), said("assistant", "Hello"), USER, BETTER]},
        [],
    ),
    "conversations": (Shape.SHAREGPT, {"conversations": [HUMAN, GPT]}, CHAT, []),
    "system in conversations": (
        Shape.SHAREGPT,
        {"conversations": [{"from": "system", "value": "Be kind."}, HUMAN, GPT], "tools": ""},
        CHAT_WITH_SYSTEM,
        ["field tools left out"],
    ),
    "system beside": (Shape.SHAREGPT, {"conversations": [HUMAN, GPT], "system": "Be kind."}, CHAT_WITH_SYSTEM, [MOVED]),
    "blank system": (
        Shape.SHAREGPT,
        {"conversations": [USER, BETTER], "system": None},
        CHAT,
        ["blank system prompt dropped"],
    ),
    "weights": (
        Shape.SHAREGPT,
        {"conversations": [HUMAN, {**GPT, "weight": 0}, HUMAN, GPT]},
        {"messages": [USER, {**BETTER, "weight": 0}, USER, BETTER]},
        [],
    ),
    "answers as texts": (Shape.CHOSEN_REJECTED, TEXTS, PREFERENCE, []),
    "answers as messages": (
        Shape.CHOSEN_REJECTED,
        {"prompt": "My tap drips.", "chosen": [BETTER], "rejected": [WORSE]},
        PREFERENCE,
        [],
    ),
    "conversations with a shared beginning": (
        Shape.CHOSEN_REJECTED,
        {"chosen": [USER, BETTER], "rejected": [USER, WORSE]},
        PREFERENCE,
        [SHARED],
    ),
    "prompt and messages again": (
        Shape.CHOSEN_REJECTED,
        {
            "prompt": "My tap drips.",
            "chosen": [USER, BETTER],
            "rejected": [USER, WORSE],
            "messages": [USER, BETTER],
            "score_chosen": 8.5,
        },
        PREFERENCE,
        ["field messages left out, which repeats chosen", SHARED, "field score_chosen left out"],
    ),
    "system before a preference": (
        Shape.CHOSEN_REJECTED,
        {**TEXTS, "system": "Be kind."},
        {**PREFERENCE, "input": {"messages": [SYSTEM, USER]}},
        [MOVED],
    ),
    "input is the list": (
        Shape.INPUT_LIST,
        {**PREFERENCE, "input": [USER]},
        PREFERENCE,
        ["list of messages made an input"],
    ),
    "contents": (Shape.VERTEX, {"contents": [ASKED, ANSWERED]}, CHAT, []),
    "system instruction": (
        Shape.VERTEX,
        {"systemInstruction": {"role": "system", "parts": [{"text": "Be kind."}]}, "contents": [ASKED, ANSWERED]},
        CHAT_WITH_SYSTEM,
        [MOVED],
    ),
    "parts without a type": (
        Shape.BEDROCK,
        {
            "schemaVersion": "bedrock-conversation-2024",
            "system": [{"text": "Be kind."}],
            "messages": [{"role": "user", "content": [{"text": "My tap drips."}]}, BETTER],
        },
        CHAT_WITH_SYSTEM,
        [MOVED, "field schemaVersion left out"],
    ),
    "system as text": (Shape.BEDROCK, {"system": "Be kind.", "messages": [USER, BETTER]}, CHAT_WITH_SYSTEM, [MOVED]),
    "chat row of ours": (None, {**CHAT, "source": "a"}, CHAT, ["field source left out"]),
    "empty columns": (
        None,
        {**CHAT, "tools": None, "parallel_tool_calls": None},
        CHAT,
        ["field tools left out", "field parallel_tool_calls left out"],
    ),
    "tools of ours": (None, {**CHAT, "tools": [TOOL], "functions": None}, {**CHAT, "tools": [TOOL]}, [FUNCTIONS_UNSET]),
    "calls in conversations": (
        Shape.SHAREGPT,
        {
            "conversations": [
                HUMAN,
                {
                    "from": "function_call",
                    "value": '[{"name": "f", "arguments": {"a": 1}}, {"name": "f", "arguments": "{}"}]',
                },
                {"from": "observation", "value": "7"},
                {"from": "observation", "value": "8"},
                GPT,
            ],
            "tools": '[{"name": "f"}]',
        },
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                        {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "7"},
                {"role": "tool", "tool_call_id": "call_2", "content": "8"},
                BETTER,
            ],
            "tools": [TOOL],
        },
        ["tools written as OpenAI has them"],
    ),
    "preference row of ours": (None, PREFERENCE, PREFERENCE, []),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_row_becomes_one_of_ours_and_says_what_was_changed(name: str) -> None:
    shape, value, row, changes = CONVERTED[name]
    before = repr(value)
    assert convert_row(value, shape) == (row, changes)
    assert repr(value) == before


REFUSED: dict[str, tuple[Shape | None, Json, str]] = {
    "no object": (Shape.ALPACA, [], "a list, not an object"),
    "no completion": (Shape.PROMPT_COMPLETION, {"prompt": "a"}, "the field completion is missing"),
    "no text": (Shape.PROMPT_COMPLETION, {"prompt": "a", "completion": 3}, "completion is a number, not a string"),
    "text and messages": (Shape.PROMPT_COMPLETION, {"prompt": "a", "completion": [BETTER]}, "completion is a list"),
    "history in words": (Shape.ALPACA, {"instruction": "a", "output": "b", "history": ["a"]}, "history is not a list"),
    "an image": (Shape.SHAREGPT, {"conversations": [HUMAN, GPT], "image": "1.jpg"}, "field image would be lost"),
    "tools": (Shape.ALPACA, {"instruction": "a", "output": "b", "tools": "[{}]"}, "field tools would be lost"),
    "tools of no JSON": (
        Shape.SHAREGPT,
        {"conversations": [HUMAN, GPT], "tools": "f(x)"},
        r"tools is no JSON that can be read: .* \(invalid_json\)",
    ),
    "tools of which a key is there twice": (
        Shape.SHAREGPT,
        {"conversations": [HUMAN, GPT], "tools": '[{"name": "f", "name": "g"}]'},
        r"tools is no JSON that can be read: the key 'name' .* \(duplicate_key\)",
    ),
    "a call of no JSON": (
        Shape.SHAREGPT,
        {"conversations": [HUMAN, {"from": "function_call", "value": "f(x)"}]},
        r"conversations\[1\].value is no JSON that can be read: .* \(invalid_json\)",
    ),
    "an argument that is there twice": (
        Shape.SHAREGPT,
        {"conversations": [HUMAN, {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1, "a": 2}}'}]},
        r"conversations\[1\].value is no JSON that can be read: the key 'a' .* \(duplicate_key\)",
    ),
    "an argument that is no number": (
        Shape.SHAREGPT,
        {"conversations": [HUMAN, {"from": "function_call", "value": '{"name": "f", "arguments": {"a": NaN}}'}]},
        r"conversations\[1\].value is no JSON that can be read: .* \(non_finite_number\)",
    ),
    "a call of no arguments": (
        Shape.SHAREGPT,
        {"conversations": [HUMAN, {"from": "function_call", "value": '{"name": "f"}'}]},
        "each with name and arguments",
    ),
    "a list beside": (Shape.SHAREGPT, {"conversations": [HUMAN, GPT], "chosen": GPT}, "field chosen would be lost"),
    "a turn of a tool": (
        Shape.SHAREGPT,
        {"conversations": [{"from": "observation", "value": "42"}]},
        "answers no call",
    ),
    "more in a turn": (
        Shape.SHAREGPT,
        {"conversations": [{**HUMAN, "image": "1.jpg"}]},
        "more than is converted: image",
    ),
    "no prompt": (Shape.CHOSEN_REJECTED, {"chosen": "a", "rejected": "b"}, "no prompt that they answer"),
    "another prompt": (
        Shape.CHOSEN_REJECTED,
        {"prompt": [SYSTEM, USER], "chosen": [USER, BETTER], "rejected": [USER, WORSE]},
        "not in what chosen and rejected have in common",
    ),
    "a call": (
        Shape.VERTEX,
        {"contents": [{"role": "model", "parts": [{"functionCall": {}}]}]},
        "a part that is no text",
    ),
    "an image part": (
        Shape.BEDROCK,
        {"messages": [{"role": "user", "content": [{"text": "a"}, {"image": {}}]}]},
        "a part that is no text",
    ),
    "unknown role": (Shape.VERTEX, {"contents": [{"role": ["user"], "parts": []}]}, "said by none of user, model"),
    "text only": (Shape.TEXT_ONLY, {"text": "a"}, "where the question ends"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_row_that_says_something_else_or_more_is_refused(name: str) -> None:
    shape, value, reason = REFUSED[name]
    with pytest.raises(RowNotConvertedError, match=reason):
        convert_row(value, shape)

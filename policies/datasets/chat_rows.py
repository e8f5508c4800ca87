"""The rules of one chat row, and of the conversation in any row, applied to a parsed JSON value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

import msgspec
from msgspec import structs

from policies.datasets.messages import KEYS_OF_TRAINED, ROLES, ChatMessage, Role, check_message
from policies.datasets.problems import DatasetProblem
from policies.datasets.row_findings import Findings, Json, Note, check_row_keys, is_list, kind
from policies.datasets.tools import Tool, ToolCall, check_functions, check_tools

__all__ = [
    "CONTROL_TOKEN",
    "KEYS",
    "MAX_MESSAGES",
    "OTHER_MODELS_TOKEN",
    "ROLES",
    "ChatMessage",
    "ChatRow",
    "Json",
    "Role",
    "check_calls_of_turn",
    "check_conversation",
    "check_row",
    "has_refused_text",
]


MAX_MESSAGES = 512
KEYS = ("messages", "tools", "parallel_tool_calls", "functions")

CONTROL_TOKEN = re.compile(
    r"<\|[\w▁./-]{1,64}\|>|<\uff5c[\w▁ ./-]{1,64}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_image>|<end_of_utterance>|<fim_(?:prefix|middle|suffix|pad)>|<(?:extra_id_|unused)\d{1,4}>"
    r"|\[TOOL_CALLS\]|\[/?(?:TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT)\]"
)
"""Tokens by which chat templates mark roles and ends. In a tenant's text they are text (`policies.rendering`)."""
OTHER_MODELS_TOKEN = re.compile(r"</?s>|<(?:bos|eos|pad|unk|mask)>|\[(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)\]")
"""Control tokens of some models and ordinary text, HTML say, for others."""
_REFUSED_BYTES = bytes({*range(32), 127, 0xF4} - set(b"\t\n\r"))
"""With 0xF4 begins, in UTF-8, what lies in the last area of private use."""


class ChatRow(msgspec.Struct, frozen=True, gc=False):
    """A conversation of a file for supervised fine-tuning."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...] = ()
    """That the conversation may use."""
    parallel_tool_calls: bool | None = None
    notes: tuple[Note, ...] = ()
    """What is told of its file as a whole."""
    kind: ClassVar[Literal["chat"]] = "chat"
    at: ClassVar[str] = ""
    """JSON path of the object that holds `messages`, with its dot."""

    def texts(self) -> Iterator[tuple[str, str]]:
        """Each text that reaches the model, with its JSON path."""
        for index, message in enumerate(self.messages):
            if message.tool_calls or message.name is not None:
                yield from message.texts(f"messages[{index}]")
            else:
                yield f"messages[{index}].content", message.content
        for index, tool in enumerate(self.tools):
            yield f"tools[{index}].function", tool.definition


def check_row(value: Json, line: int) -> ChatRow | tuple[DatasetProblem, ...]:
    """The typed row, or everything that is wrong with it."""
    findings = Findings(line)
    if not isinstance(value, dict):
        findings.add("not_an_object", found=kind(value))
        return tuple(findings.problems)
    check_row_keys(value, KEYS, findings)
    row = check_conversation(value, findings)
    if row.messages:
        _check_answer(row.messages, findings)
    return tuple(findings.problems) if findings.problems else structs.replace(row, notes=tuple(findings.notes))


def check_conversation(
    value: dict[str, Json], findings: Findings, *, at: str = "", known: tuple[str, ...] = KEYS_OF_TRAINED
) -> ChatRow:
    """The object of `messages` and tools at path `at`; without messages where one of them is malformed.

    Args:
        known: the keys that a message may have.
    """
    messages = _messages(value, findings, at=at, known=known)
    tools = _tools(value, findings, at=at)
    parallel = value.get("parallel_tool_calls")
    if not (parallel is None or isinstance(parallel, bool)):
        findings.add("wrong_type", f"{at}parallel_tool_calls", expected="true or false", found=kind(parallel))
    row = ChatRow(messages, tools, parallel if tools else None)  # without tools it says nothing
    if any(message.tool_calls or message.role == "tool" for message in messages):
        return structs.replace(row, messages=_checked_exchange(row, findings, at=f"{at}messages"))
    return row


def check_calls_of_turn(calls: Sequence[ToolCall], row: ChatRow, findings: Findings, *, at: str) -> None:
    """The calls of one message, whose path is `at`, against what its row offers and allows."""
    offered = {tool.name for tool in row.tools}
    for index, call in enumerate(calls):
        if call.name not in offered:
            findings.add("tool_not_offered", f"{at}.tool_calls[{index}].function.name")
    if len(calls) > 1 and row.parallel_tool_calls is False:
        findings.add("several_tool_calls", f"{at}.tool_calls", count=len(calls))


def _checked_exchange(row: ChatRow, findings: Findings, *, at: str) -> tuple[ChatMessage, ...]:
    """The messages, those of tools with the names of the functions whose calls they answer.

    The answers to the calls of a turn follow it, in any order, all of them before anything else is said.
    """
    messages: list[ChatMessage] = []
    turn, open_calls = 0, dict[str, ToolCall]()
    answered = set[str]()
    for index, message in enumerate(row.messages):
        if message.role == "tool":
            number = message.tool_call_id or ""
            call = open_calls.pop(number, None)
            if call is None or message.name not in (None, call.name):
                code = "repeated_tool_call" if number in answered else "unknown_tool_call"
                findings.add(code, f"{at}[{index}].tool_call_id")
            else:
                answered.add(number)
                message = structs.replace(message, name=call.name)
        else:
            if open_calls:
                findings.add("unanswered_tool_call", f"{at}[{turn}].tool_calls", count=len(open_calls))
            turn, open_calls, answered = index, {call.id: call for call in message.tool_calls}, set()
            check_calls_of_turn(message.tool_calls, row, findings, at=f"{at}[{index}]")
        messages.append(message)
    if open_calls and turn < len(row.messages) - 1:
        findings.add("unanswered_tool_call", f"{at}[{turn}].tool_calls", count=len(open_calls))
    return tuple(messages)


def _messages(row: dict[str, Json], findings: Findings, *, at: str, known: tuple[str, ...]) -> tuple[ChatMessage, ...]:
    path = f"{at}messages"
    if "messages" not in row:
        findings.add("missing_field", path)
        return ()
    values = row["messages"]
    if not is_list(values):
        findings.add("wrong_type", path, expected="a list", found=kind(values))
        return ()
    if not values:
        findings.add("empty_messages", path)
        return ()
    if len(values) > MAX_MESSAGES:
        findings.add("too_many_messages", path, count=len(values), limit=MAX_MESSAGES)
        return ()
    messages = [check_message(value, f"{path}[{index}]", findings, known=known) for index, value in enumerate(values)]
    complete = tuple(message for message in messages if message is not None)
    return complete if len(complete) == len(messages) else ()


def _tools(row: dict[str, Json], findings: Findings, *, at: str) -> tuple[Tool, ...]:
    """What is offered, as `tools` or in the earlier form, not both."""
    if row.get("functions") in (None, []):
        return check_tools(row.get("tools"), f"{at}tools", findings)
    if row.get("tools"):
        findings.add("unsupported_field", f"{at}functions")
    findings.note("legacy_functions", f"{at}functions")
    return check_functions(row["functions"], f"{at}functions", findings)


def _check_answer(messages: tuple[ChatMessage, ...], findings: Findings) -> None:
    if messages[-1].role != "assistant":
        findings.add("last_message_not_assistant", f"messages[{len(messages) - 1}].role")
    elif not any(message.weight for message in messages):
        findings.add("nothing_to_train_on", "messages")
    elif messages[0].weight:
        findings.add("answer_without_prompt", "messages[0].role")


def has_refused_text(text: str) -> bool:
    """Whether the text may hold a character that is refused; False is certain."""
    try:
        content = text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return True
    return len(content.translate(None, _REFUSED_BYTES)) != len(content)

"""The rules of one preference row: a conversation with a better and a worse answer, for DPO.

    {"input": {"messages": […], "tools"?, "parallel_tool_calls"?},
     "preferred_output": [{"role": "assistant", "content"}], "non_preferred_output": [{"role": "assistant", "content"}]}

as OpenAI's guide has it; its API reference says `preferred_completion` and `non_preferred_completion`, which are read
too. A message has no weight: what is learnt is the difference of the two answers, which may call the input's tools.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import msgspec

from policies.datasets.chat_rows import KEYS as INPUT_KEYS
from policies.datasets.chat_rows import ChatMessage, ChatRow, check_calls_of_turn, check_conversation
from policies.datasets.messages import KEYS as MESSAGE_KEYS
from policies.datasets.messages import check_message
from policies.datasets.problems import DatasetProblem
from policies.datasets.row_findings import Findings, Json, Note, check_keys, check_row_keys, is_list, kind
from policies.datasets.tools import Tool, ToolCall, texts_of_calls

PREFERRED, NON_PREFERRED = "preferred_output", "non_preferred_output"
OTHER_SPELLINGS = {PREFERRED: "preferred_completion", NON_PREFERRED: "non_preferred_completion"}
KEYS = ("input", *OTHER_SPELLINGS, *OTHER_SPELLINGS.values())


class PreferenceRow(msgspec.Struct, frozen=True, gc=False):
    """An input with two answers, of which one is the better."""

    messages: tuple[ChatMessage, ...]
    """The input; its last message is the user's or a tool's. All of weight 0."""
    preferred: str
    """The better answer's text; empty only where it calls tools."""
    non_preferred: str
    tools: tuple[Tool, ...] = ()
    parallel_tool_calls: bool | None = None
    preferred_calls: tuple[ToolCall, ...] = ()
    """Of tools, by the better answer."""
    non_preferred_calls: tuple[ToolCall, ...] = ()
    notes: tuple[Note, ...] = ()
    """What is told of its file as a whole."""
    kind: ClassVar[Literal["preference"]] = "preference"
    at: ClassVar[str] = "input."
    """JSON path of the object that holds `messages`, with its dot."""

    def with_preferred(self) -> ChatRow:
        """The conversation with the better answer, which alone has a weight."""
        return self._ended_by(self.answers()[0])

    def with_non_preferred(self) -> ChatRow:
        return self._ended_by(self.answers()[1])

    def answers(self) -> tuple[ChatMessage, ChatMessage]:
        """The better one first."""
        return (
            ChatMessage("assistant", self.preferred, 1, self.preferred_calls),
            ChatMessage("assistant", self.non_preferred, 1, self.non_preferred_calls),
        )

    def _ended_by(self, answer: ChatMessage) -> ChatRow:
        return ChatRow((*self.messages, answer), self.tools, self.parallel_tool_calls)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Each text that reaches the model, with its JSON path; the texts of the two answers come last."""
        for path, text in ChatRow(self.messages, self.tools).texts():
            yield f"{self.at}{path}", text
        yield from texts_of_calls(self.preferred_calls, f"{PREFERRED}[0].tool_calls")
        yield from texts_of_calls(self.non_preferred_calls, f"{NON_PREFERRED}[0].tool_calls")
        yield f"{PREFERRED}[0].content", self.preferred
        yield f"{NON_PREFERRED}[0].content", self.non_preferred


def is_preference(value: Json) -> bool:
    """Whether a JSON value looks like a preference row, be it sound or not."""
    return isinstance(value, dict) and "messages" not in value and any(key in value for key in KEYS)


def check_preference(value: Json, line: int) -> PreferenceRow | tuple[DatasetProblem, ...]:
    """The typed row, or everything that is wrong with it."""
    findings = Findings(line)
    if not isinstance(value, dict):
        findings.add("not_an_object", found=kind(value))
        return tuple(findings.problems)
    check_row_keys(value, KEYS, findings)
    given = _input(value, findings)
    better, worse = _output(value, PREFERRED, given, findings), _output(value, NON_PREFERRED, given, findings)
    if better is not None and worse is not None and _said(better) == _said(worse):
        findings.add("equal_outputs", NON_PREFERRED)
    if findings.problems or better is None or worse is None:
        return tuple(findings.problems)
    return PreferenceRow(
        messages=given.messages,
        preferred=better.content,
        non_preferred=worse.content,
        tools=given.tools,
        parallel_tool_calls=given.parallel_tool_calls,
        preferred_calls=better.tool_calls,
        non_preferred_calls=worse.tool_calls,
        notes=tuple(findings.notes),
    )


def _said(answer: ChatMessage) -> tuple[object, ...]:
    """What tells two answers apart; the ids of calls don't."""
    return answer.content.strip(), tuple((call.name, call.arguments) for call in answer.tool_calls)


def _input(row: dict[str, Json], findings: Findings) -> ChatRow:
    if "input" not in row:
        findings.add("missing_field", "input")
        return ChatRow(())
    value = row["input"]
    if not isinstance(value, dict):
        findings.add("wrong_type", "input", expected="an object", found=kind(value))
        return ChatRow(())
    check_keys(value, INPUT_KEYS, findings=findings, at=PreferenceRow.at)
    conversation = check_conversation(value, findings, at=PreferenceRow.at, known=MESSAGE_KEYS)
    if conversation.messages and conversation.messages[-1].role not in ("user", "tool"):
        findings.add("last_message_not_user", f"input.messages[{len(conversation.messages) - 1}].role")
    return conversation


def _output(row: dict[str, Json], name: str, given: ChatRow, findings: Findings) -> ChatMessage | None:
    """An answer to what is given, or None where it has no shape."""
    other = OTHER_SPELLINGS[name]
    if name in row and other in row:
        findings.add("unknown_field", other)
    spelt = other if name not in row and other in row else name
    if spelt not in row:
        findings.add("missing_field", spelt)
        return None
    messages = row[spelt]
    if not is_list(messages):
        findings.add("wrong_type", spelt, expected="a list", found=kind(messages))
        return None
    if len(messages) != 1:
        findings.add("not_one_message", spelt, count=len(messages))
        return None
    message = check_message(messages[0], f"{spelt}[0]", findings, known=MESSAGE_KEYS)
    if message is not None and message.role != "assistant":
        findings.add("output_not_assistant", f"{spelt}[0].role")
    if message is not None:
        check_calls_of_turn(message.tool_calls, given, findings, at=f"{spelt}[0]")
        if message.name is not None:
            findings.note("name_not_rendered", f"{spelt}[0].name")
    return message

"""The rules of one preference row: a conversation with a better and a worse answer, for DPO.

    {"input": {"messages": […], "tools"?, "parallel_tool_calls"?},
     "preferred_output": [{"role": "assistant", "content"}], "non_preferred_output": [{"role": "assistant", "content"}]}

as OpenAI's guide has it; its API reference says `preferred_completion` and `non_preferred_completion`, which are read
too. A message has no weight: what is learnt is the difference of the two answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import msgspec

from policies.datasets.chat_rows import (
    ChatMessage,
    ChatRow,
    Findings,
    Json,
    check_conversation,
    check_keys,
    check_message,
    is_list,
    kind,
)
from policies.datasets.problems import DatasetProblem

PREFERRED, NON_PREFERRED = "preferred_output", "non_preferred_output"
OTHER_SPELLINGS = {PREFERRED: "preferred_completion", NON_PREFERRED: "non_preferred_completion"}
KEYS = ("input", *OTHER_SPELLINGS, *OTHER_SPELLINGS.values())
MESSAGE_KEYS = ("role", "content")


class PreferenceRow(msgspec.Struct, frozen=True, gc=False):
    """An input with two answers, of which one is the better."""

    messages: tuple[ChatMessage, ...]
    """The input; its last message is the user's. All of weight 0."""
    preferred: str
    """The better answer's text."""
    non_preferred: str
    tools: tuple[dict[str, Json], ...] = ()
    parallel_tool_calls: bool | None = None
    kind: ClassVar[Literal["preference"]] = "preference"
    at: ClassVar[str] = "input."
    """JSON path of the object that holds `messages`, with its dot."""

    def with_preferred(self) -> ChatRow:
        """The conversation with the better answer, which alone has a weight."""
        return self._ended_by(self.preferred)

    def with_non_preferred(self) -> ChatRow:
        return self._ended_by(self.non_preferred)

    def _ended_by(self, answer: str) -> ChatRow:
        return ChatRow((*self.messages, ChatMessage("assistant", answer, 1)), self.tools, self.parallel_tool_calls)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Each text that reaches the model, with its JSON path; the two answers come last."""
        for path, text in ChatRow(self.messages, self.tools).texts():
            yield f"{self.at}{path}", text
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
    check_keys(value, KEYS, findings=findings)
    conversation = _input(value, findings)
    better, worse = _output(value, PREFERRED, findings), _output(value, NON_PREFERRED, findings)
    if better is not None and worse is not None and better.strip() == worse.strip():
        findings.add("equal_outputs", NON_PREFERRED)
    if findings.problems or better is None or worse is None:
        return tuple(findings.problems)
    return PreferenceRow(conversation.messages, better, worse, conversation.tools, conversation.parallel_tool_calls)


def _input(row: dict[str, Json], findings: Findings) -> ChatRow:
    if "input" not in row:
        findings.add("missing_field", "input")
        return ChatRow(())
    value = row["input"]
    if not isinstance(value, dict):
        findings.add("wrong_type", "input", expected="an object", found=kind(value))
        return ChatRow(())
    conversation = check_conversation(value, findings, at=PreferenceRow.at, known=MESSAGE_KEYS)
    if conversation.messages and conversation.messages[-1].role != "user":
        findings.add("last_message_not_user", f"input.messages[{len(conversation.messages) - 1}].role")
    return conversation


def _output(row: dict[str, Json], name: str, findings: Findings) -> str | None:
    """The text of an answer, or None where it has no shape."""
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
    return None if message is None else message.content

"""The rules of one message of a row, applied to a parsed JSON value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import msgspec

from policies.datasets.row_findings import Findings, Json, check_keys, check_text, is_list, kind
from policies.datasets.tools import (
    ToolCall,
    check_calls,
    check_function_call,
    check_id,
    check_name,
    legacy_id,
    texts_of_calls,
)

Role = Literal["system", "developer", "user", "assistant", "tool"]

ROLES: tuple[Role, ...] = get_args(Role)
KEYS = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call")
KEYS_OF_TRAINED = (*KEYS, "weight")
TEXT_PART_KEYS = {"type", "text"}
_LEGACY_ROLE = "function"
"""What `tool` was called before."""


class ChatMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of a row, with whether it is trained on; made in a tenth of a dataclass's time."""

    role: Role
    content: str
    """Empty only where the message calls tools, or is a tool's answer."""
    weight: int
    """1: train on it. Always 0 unless the role is assistant."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant message."""
    tool_call_id: str | None = None
    """Of a tool's answer: the call that it answers."""
    name: str | None = None
    """Of the speaker; of a tool's answer, the function that was called."""

    def texts(self, at: str) -> Iterator[tuple[str, str]]:
        """Each text that may reach the model, with its JSON path; `at` is the message's."""
        if self.content or not self.tool_calls:
            yield f"{at}.content", self.content
        if self.name is not None:
            yield f"{at}.name", self.name
        yield from texts_of_calls(self.tool_calls, f"{at}.tool_calls")


def check_message(value: Json, at: str, findings: Findings, *, known: tuple[str, ...]) -> ChatMessage | None:
    """The message at path `at`, which ends with its place in brackets; None where it has no role or nothing to say."""
    if not isinstance(value, dict):
        findings.add("wrong_type", at, expected="an object", found=kind(value))
        return None
    check_keys(value, known, findings=findings, at=f"{at}.")
    role = _role(value, at, findings)
    if role is None:
        return None
    n_found = findings.n_found
    calls = _calls(value, role, at, findings)
    answered = _answered(value, role, at, findings)
    has_sound_calls = findings.n_found == n_found
    may_be_empty = role == "tool" or any(value.get(key) for key in ("tool_calls", "function_call"))
    content = _content(value, at, findings, may_be_empty=may_be_empty)
    name = None if value.get("name") is None else check_name(value["name"], f"{at}.name", findings)
    weight = _weight(value, role, findings=findings, at=f"{at}.weight") if "weight" in known else 0
    if content is None or not has_sound_calls:
        return None
    return ChatMessage(role, content, weight, calls, answered, name)


def _role(value: dict[str, Json], at: str, findings: Findings) -> Role | None:
    if "role" not in value:
        findings.add("missing_field", f"{at}.role")
        return None
    for role in ROLES:
        if value["role"] == role:
            return role
    if value["role"] == _LEGACY_ROLE:
        findings.note("legacy_functions", "messages")
        return "tool"
    findings.add("unknown_role", f"{at}.role", known=", ".join(ROLES))
    return None


def _calls(value: dict[str, Json], role: Role, at: str, findings: Findings) -> tuple[ToolCall, ...]:
    said = [key for key in ("tool_calls", "function_call") if value.get(key) not in (None, [])]
    if said and (role != "assistant" or len(said) > 1):
        findings.add("unsupported_field", f"{at}.{said[-1]}")
        return ()
    if said == ["function_call"]:
        findings.note("legacy_functions", "messages")
        return check_function_call(value["function_call"], _place(at), f"{at}.function_call", findings)
    return check_calls(value["tool_calls"], f"{at}.tool_calls", findings) if said else ()


def _answered(value: dict[str, Json], role: Role, at: str, findings: Findings) -> str | None:
    """Which call a message of a tool answers."""
    if role != "tool":
        if value.get("tool_call_id") is not None:
            findings.add("unsupported_field", f"{at}.tool_call_id")
        return None
    if value["role"] == _LEGACY_ROLE:
        if value.get("name") is None:
            findings.add("missing_field", f"{at}.name")
        return legacy_id(_place(at) - 1)
    if value.get("tool_call_id") is None:
        findings.add("missing_field", f"{at}.tool_call_id")
        return None
    return check_id(value["tool_call_id"], f"{at}.tool_call_id", findings)


def _place(at: str) -> int:
    """Of a message among the others, by its path."""
    return int(at[at.rindex("[") + 1 : -1])


def _content(value: dict[str, Json], at: str, findings: Findings, *, may_be_empty: bool) -> str | None:
    at = f"{at}.content"
    if may_be_empty and value.get("content") in (None, []):
        return ""
    if "content" not in value:
        findings.add("missing_field", at)
        return None
    content = value["content"]
    if is_list(content) and content:
        content = _joined_parts(content, at, findings)
        if content is None:
            return None
    if not isinstance(content, str):
        findings.add("wrong_type", at, expected="a string", found=kind(content))
        return None
    if not content.strip():
        if may_be_empty:
            return ""
        findings.add("empty_content", at)
    check_text(content, at, findings)
    return content


def _joined_parts(parts: list[Json], at: str, findings: Findings) -> str | None:
    """The text of a content that is a list of parts; None where one of them is no text."""
    texts: list[str] = []
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            findings.add("wrong_type", f"{at}[{index}]", expected="a part with a type", found=kind(part))
        elif part["type"] != "text" or set(part) != TEXT_PART_KEYS or not isinstance(part["text"], str):
            findings.add("unsupported_part", f"{at}[{index}]", type=ascii(part["type"][:40]))
        else:
            texts.append(part["text"])
    return "".join(texts) if len(texts) == len(parts) else None


def _weight(value: dict[str, Json], role: Role, *, findings: Findings, at: str) -> int:
    weight = value.get("weight")
    if weight is None:
        return int(role == "assistant")
    if role != "assistant":
        findings.add("misplaced_weight", at)
    elif isinstance(weight, bool) or not isinstance(weight, int | float) or weight not in (0, 1):
        findings.add("invalid_weight", at)
    return int(role == "assistant" and weight != 0)

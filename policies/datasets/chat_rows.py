"""The rules of one chat row, and of the conversation in any row, applied to a parsed JSON value."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, TypeGuard, get_args

import msgspec

from policies.datasets.problems import DatasetProblem

Role = Literal["system", "developer", "user", "assistant", "tool"]
Json = Any  # Any: a parsed JSON value of unknown shape; this module is what gives it one

ROLES: tuple[Role, ...] = get_args(Role)
MAX_MESSAGES = 512
MAX_DEPTH = 32
MAX_PROBLEMS_PER_ROW = 20

CONTROL_TOKEN = re.compile(
    r"<\|[\w▁./-]{1,64}\|>|<\uff5c[\w▁ ./-]{1,64}\uff5c>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>"
    r"|<(?:start|end)_of_image>|<end_of_utterance>|<fim_(?:prefix|middle|suffix|pad)>|<(?:extra_id_|unused)\d{1,4}>"
    r"|\[TOOL_CALLS\]|\[/?(?:TOOL_RESULTS|AVAILABLE_TOOLS|SYSTEM_PROMPT)\]"
)
"""Tokens by which chat templates mark roles and ends. In a tenant's text they are text (`policies.rendering`)."""
OTHER_MODELS_TOKEN = re.compile(r"</?s>|<(?:bos|eos|pad|unk|mask)>|\[(?:BOS|EOS|PAD|UNK|CLS|SEP|MASK)\]")
"""Control tokens of some models and ordinary text, HTML say, for others."""
FORBIDDEN_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\U00100000-\U0010ffff]")
"""The last area of private use among them: its characters stand for special tokens (`policies.rendering`)."""
_REFUSED_BYTES = bytes({*range(32), 127, 0xF4} - set(b"\t\n\r"))
"""With 0xF4 begins, in UTF-8, what lies in the last area of private use."""
UNSUPPORTED = frozenset(
    {"tool_calls", "tool_call_id", "function_call", "name", "refusal", "audio", "functions", "annotations"}
)
"""Fields of OpenAI's format that would not reach the model; naming them apart spares users a hunt for a typo. Null or
empty, as exported completions have them, they say nothing and are passed over."""
TEXT_PART_KEYS = {"type", "text"}


class ChatMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of a row, with whether it is trained on; made in a tenth of a dataclass's time."""

    role: Role
    content: str
    weight: int
    """1: train on it. Always 0 unless the role is assistant."""


class ChatRow(msgspec.Struct, frozen=True, gc=False):
    """A conversation of a file for supervised fine-tuning."""

    messages: tuple[ChatMessage, ...]
    tools: tuple[dict[str, Json], ...] = ()
    """JSON schemas of the tools that the conversation may use."""
    parallel_tool_calls: bool | None = None
    kind: ClassVar[Literal["chat"]] = "chat"
    at: ClassVar[str] = ""
    """JSON path of the object that holds `messages`, with its dot."""

    def texts(self) -> Iterator[tuple[str, str]]:
        """Each text that reaches the model, with its JSON path."""
        for index, message in enumerate(self.messages):
            yield f"messages[{index}].content", message.content
        yield from _strings(list(self.tools), "tools")


class Findings:
    """The problems of one line, at most `MAX_PROBLEMS_PER_ROW`."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.problems: list[DatasetProblem] = []

    def add(self, code: str, field: str | None = None, **details: object) -> None:
        if len(self.problems) < MAX_PROBLEMS_PER_ROW:
            self.problems.append(DatasetProblem.of(code, self.line, field, **details))


def check_row(value: Json, line: int) -> ChatRow | tuple[DatasetProblem, ...]:
    """The typed row, or everything that is wrong with it."""
    findings = Findings(line)
    if not isinstance(value, dict):
        findings.add("not_an_object", found=kind(value))
        return tuple(findings.problems)
    row = check_conversation(value, findings)
    if row.messages:
        _check_answer(row.messages, findings)
    return tuple(findings.problems) if findings.problems else row


def check_conversation(
    value: dict[str, Json], findings: Findings, *, at: str = "", known: tuple[str, ...] = ("role", "content", "weight")
) -> ChatRow:
    """The object of `messages` and tools at path `at`; without messages where one of them is malformed.

    Args:
        known: the keys that a message may have.
    """
    check_keys(value, ("messages", "tools", "parallel_tool_calls"), findings=findings, at=at)
    messages = _messages(value, findings, at=at, known=known)
    tools = _tools(value.get("tools"), findings, at=at)
    parallel = value.get("parallel_tool_calls")
    if not (parallel is None or isinstance(parallel, bool)):
        findings.add("wrong_type", f"{at}parallel_tool_calls", expected="true or false", found=kind(parallel))
    return ChatRow(messages, tools, parallel if tools else None)  # without tools it says nothing


def check_keys(value: dict[str, Json], known: tuple[str, ...], *, findings: Findings, at: str = "") -> None:
    for key in value:
        if key not in known and not (key in UNSUPPORTED and value[key] in (None, [])):
            code = "unsupported_field" if key in UNSUPPORTED else "unknown_field"
            findings.add(code, at + ascii(key[:40])[1:-1])


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


def _check_answer(messages: tuple[ChatMessage, ...], findings: Findings) -> None:
    if messages[-1].role != "assistant":
        findings.add("last_message_not_assistant", f"messages[{len(messages) - 1}].role")
    elif not any(message.weight for message in messages):
        findings.add("nothing_to_train_on", "messages")
    elif messages[0].weight:
        findings.add("answer_without_prompt", "messages[0].role")


def check_message(value: Json, at: str, findings: Findings, *, known: tuple[str, ...]) -> ChatMessage | None:
    """The message at path `at`; None where role or content is missing or of a wrong type."""
    if not isinstance(value, dict):
        findings.add("wrong_type", at, expected="an object", found=kind(value))
        return None
    check_keys(value, known, findings=findings, at=f"{at}.")
    role = _role(value, at, findings)
    content = _content(value, at, findings)
    if role is None or content is None:
        return None
    weight = _weight(value, role, findings=findings, at=f"{at}.weight") if "weight" in known else 0
    return ChatMessage(role, content, weight)


def _role(value: dict[str, Json], at: str, findings: Findings) -> Role | None:
    if "role" not in value:
        findings.add("missing_field", f"{at}.role")
        return None
    for role in ROLES:
        if value["role"] == role:
            return role
    findings.add("unknown_role", f"{at}.role", known=", ".join(ROLES))
    return None


def _content(value: dict[str, Json], at: str, findings: Findings) -> str | None:
    at = f"{at}.content"
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
        findings.add("empty_content", at)
    _check_text(content, at, findings)
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


def _tools(values: Json, findings: Findings, *, at: str) -> tuple[dict[str, Json], ...]:
    if values is None:
        return ()
    if not is_list(values) or not all(isinstance(value, dict) for value in values):
        findings.add("wrong_type", f"{at}tools", expected="a list of objects", found=kind(values))
        return ()
    for path, text in _strings(values, f"{at}tools", findings):
        _check_text(text, path, findings)
    return tuple(values)


def _strings(value: Json, at: str, findings: Findings | None = None, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every string in a JSON value, keys too, with its path; reports what is nested too deeply and stops there."""
    if isinstance(value, str):
        yield at, value
    elif depth > MAX_DEPTH:
        if findings is not None:
            findings.add("too_deep", at, limit=MAX_DEPTH)
    elif isinstance(value, dict):
        for key, inner in value.items():
            path = f"{at}.{ascii(key[:40])[1:-1]}"
            yield path, key
            yield from _strings(inner, path, findings, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings(inner, f"{at}[{index}]", findings, depth + 1)


def _check_text(text: str, at: str, findings: Findings) -> None:
    if found := FORBIDDEN_CHARACTER.search(text):
        character = found.group()
        code = "lone_surrogate" if "\ud800" <= character <= "\udfff" else "control_character"
        findings.add(code, at, character=f"U+{ord(character):04X}")


def has_refused_text(text: str) -> bool:
    """Whether the text may hold a character that is refused; False is certain."""
    try:
        content = text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return True
    return len(content.translate(None, _REFUSED_BYTES)) != len(content)


def is_list(value: Json) -> TypeGuard[list[Json]]:
    return isinstance(value, list)


def kind(value: Json) -> str:
    """The JSON name of a value's type."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")

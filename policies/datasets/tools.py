"""The rules of tools in a row: which are offered, which are called, and which message answers which call.

Definitions and calls have the shapes of OpenAI's API. Its earlier ones, `functions` and `function_call`, become these:
a call gets the place of its message as its id, and the message after it, of role `function`, answers it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

import msgspec

from policies.datasets.row_findings import Findings, Json, check_keys, check_text, is_list, kind, strings
from policies.datasets.strict_json import decode_text

MAX_TOOLS = 128
"""Tools of a row, and calls of a message: as many as OpenAI takes."""
MAX_ID = 256
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_TOOL_KEYS, _CALL_KEYS = ("type", "function"), ("id", "type", "function")
_DEFINITION_KEYS = ("name", "description", "parameters", "strict")


class Tool(msgspec.Struct, frozen=True, gc=False):
    """A function that a conversation offers to the model."""

    name: str
    definition: str
    """JSON of `{"name", "description"?, "parameters"?, "strict"?}`, its keys in the order of the row."""


class ToolCall(msgspec.Struct, frozen=True, gc=False):
    """A call that the assistant makes."""

    id: str
    name: str
    arguments: str
    """JSON of an object, written as Python writes it, however the row does."""


def check_tools(values: Json, at: str, findings: Findings) -> tuple[Tool, ...]:
    """The list `tools` of a row."""
    tools = []
    for path, value in _objects(values, at, findings):
        check_keys(value, _TOOL_KEYS, findings=findings, at=f"{path}.")
        if _check_type(value, path, findings):
            tools.append(_tool(value.get("function"), f"{path}.function", findings))
    return _distinct(tools, at, findings)


def check_functions(values: Json, at: str, findings: Findings) -> tuple[Tool, ...]:
    """The list `functions`, as rows had it before there were tools."""
    return _distinct([_tool(value, path, findings) for path, value in _objects(values, at, findings)], at, findings)


def check_calls(values: Json, at: str, findings: Findings) -> tuple[ToolCall, ...]:
    """The list `tool_calls` of a message."""
    calls: list[ToolCall] = []
    for path, value in _objects(values, at, findings):
        check_keys(value, _CALL_KEYS, findings=findings, at=f"{path}.")
        number = check_id(value.get("id"), f"{path}.id", findings)
        if not _check_type(value, path, findings) or number is None:
            continue
        call = _call(value.get("function"), number, f"{path}.function", findings)
        if any(call is not None and call.id == other.id for other in calls):
            findings.add("repeated_tool_call", f"{path}.id")
        calls += [] if call is None else [call]
    return tuple(calls)


def check_function_call(value: Json, index: int, at: str, findings: Findings) -> tuple[ToolCall, ...]:
    """The `function_call` of the message at place `index`."""
    call = _call(value, legacy_id(index), at, findings)
    return () if call is None else (call,)


def legacy_id(index: int) -> str:
    """What the function call of the message at place `index` is called."""
    return f"call_{index}"


def check_id(value: Json, at: str, findings: Findings) -> str | None:
    if isinstance(value, str) and 0 < len(value) <= MAX_ID:
        check_text(value, at, findings)
        return value
    findings.add("wrong_type", at, expected=f"a text of 1 to {MAX_ID} characters", found=kind(value))
    return None


def check_name(value: Json, at: str, findings: Findings) -> str | None:
    """A name of a function or of a speaker."""
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    findings.add("invalid_name", at)
    return None


def texts_of_calls(calls: Sequence[ToolCall], at: str) -> Iterator[tuple[str, str]]:
    """Each text of calls with its JSON path."""
    for index, call in enumerate(calls):
        yield f"{at}[{index}].function.name", call.name
        yield f"{at}[{index}].function.arguments", call.arguments


def _objects(values: Json, at: str, findings: Findings) -> list[tuple[str, dict[str, Json]]]:
    """Of a list of at most `MAX_TOOLS` objects each with its path; none where it is no such list."""
    if values is None:
        return []
    if not is_list(values) or not all(isinstance(value, dict) for value in values):
        findings.add("wrong_type", at, expected="a list of objects", found=kind(values))
        return []
    if len(values) > MAX_TOOLS:
        findings.add("too_many_tools", at, count=len(values), limit=MAX_TOOLS)
        return []
    return [(f"{at}[{index}]", value) for index, value in enumerate(values)]


def _check_type(value: dict[str, Json], at: str, findings: Findings) -> bool:
    if value.get("type", "function") == "function":
        return True
    findings.add(
        "wrong_type", f"{at}.type", expected="the type function, which alone can be trained on", found="another"
    )
    return False


def _tool(value: Json, at: str, findings: Findings) -> Tool | None:
    if not isinstance(value, dict):
        findings.add("wrong_type", at, expected="an object", found=kind(value))
        return None
    check_keys(value, _DEFINITION_KEYS, findings=findings, at=f"{at}.")
    name = check_name(value.get("name"), f"{at}.name", findings)
    for key, expected, type_ in (
        ("description", "a string", str),
        ("parameters", "an object, the JSON schema of the arguments", dict),
        ("strict", "true or false", bool),
    ):
        found = value.get(key)
        if not (found is None or isinstance(found, type_)):
            findings.add("wrong_type", f"{at}.{key}", expected=expected, found=kind(found))
    schema = value.get("parameters")
    if isinstance(schema, dict) and schema.get("type", "object") != "object":
        findings.add("wrong_type", f"{at}.parameters.type", expected="the type object", found="another")
    if not _check_strings(value, at, findings) or name is None:
        return None
    said = {key: found for key, found in value.items() if found is not None}
    return Tool(name, json.dumps(said, ensure_ascii=False))


def _distinct(tools: Sequence[Tool | None], at: str, findings: Findings) -> tuple[Tool, ...]:
    found: dict[str, Tool] = {}
    for index, tool in enumerate(tools):
        if tool is not None and found.setdefault(tool.name, tool) is not tool:
            findings.add("duplicate_tool", f"{at}[{index}]")
    return tuple(found.values())


def _call(value: Json, number: str, at: str, findings: Findings) -> ToolCall | None:
    if not isinstance(value, dict):
        findings.add("wrong_type", at, expected="an object", found=kind(value))
        return None
    check_keys(value, ("name", "arguments"), findings=findings, at=f"{at}.")
    name = check_name(value.get("name"), f"{at}.name", findings)
    arguments = _arguments(value.get("arguments"), f"{at}.arguments", findings)
    return None if name is None or arguments is None else ToolCall(number, name, arguments)


def _arguments(value: Json, at: str, findings: Findings) -> str | None:
    """JSON of the arguments, which are an object or the text of one."""
    if isinstance(value, str):
        value = decode_text(value, findings.line)
        if isinstance(value, tuple):
            findings.add("invalid_arguments", at, detail=value[0].message)
            return None
    if not isinstance(value, dict):
        findings.add("invalid_arguments", at, detail=f"it is {kind(value)}")
        return None
    return json.dumps(value, ensure_ascii=False) if _check_strings(value, at, findings) else None


def _check_strings(value: Json, at: str, findings: Findings) -> bool:
    """Whether a value has no problem of its texts or its depth."""
    n_found = findings.n_found
    for path, text in strings(value, at, findings):
        check_text(text, path, findings)
    return findings.n_found == n_found

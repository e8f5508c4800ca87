"""Turns validation errors of a policy document into lines that say where, what is wrong and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from policies.documents.strict_yaml import FieldPath, YamlDocument
from policies.documents.suggestions import did_you_mean

Schema = Mapping[str, Any]  # Any: JSON Schema


def describe(document: YamlDocument, error: ValidationError, *, source: str, schema: Schema) -> Iterator[str]:
    """One line `source:line: field: what; fix` per wrong field, in the order of lines.

    Members of a union each report their own error of one field: these are joined by "or". Fields that YAML refused,
    and what contains them, are left out: their values are unknown.
    """
    refused = [problem.path for problem in document.problems]
    found: dict[tuple[int, str], list[str]] = {}
    for details in error.errors():
        if details["type"] == "too_short" and details["input"]:
            continue  # pydantic counts only the items that are right; those that are wrong have errors of their own
        path = _field_path(details, document.lines)
        if any(known[: len(path)] == path for known in refused):
            continue
        line = line_of(path, document)
        what = _explain(details, schema)
        found.setdefault((line, show_path(path)), []).append(what)
    for (line, field), whats in sorted(found.items()):
        yield f"{source}:{line}: {field}: {' or '.join(dict.fromkeys(whats))}"


def show_path(path: FieldPath) -> str:
    """`spec.rules[0].metric`; the document itself is `document`."""
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return shown.removeprefix(".") or "document"


def _field_path(details: ErrorDetails, lines: Mapping[FieldPath, int]) -> FieldPath:
    """The error's place in the document: without union members, with the field that a model's message starts with."""
    path: FieldPath = ()
    for part in details["loc"]:
        if (*path, part) in lines:
            path = (*path, part)
    if details["type"] == "missing":
        return (*path, details["loc"][-1])
    named = [details.get("ctx", {}).get("discriminator", "").strip("'"), _first_word(details)]
    return next(((*path, name) for name in named if (*path, name) in lines), path)


def _first_word(details: ErrorDetails) -> str:
    match = re.match(r"Value error, (\w+)", details["msg"])
    return match[1] if match else ""


def line_of(path: FieldPath, document: YamlDocument) -> int:
    """The line of a field, or of what would contain it."""
    while path not in document.lines:
        path = path[:-1]
    return document.lines[path]


def _explain(details: ErrorDetails, schema: Schema) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "extra_forbidden":
            return f"unknown key; {did_you_mean(str(details['loc'][-1]), _known_keys(details['loc'][:-1], schema))}"
        case "missing":
            return "missing; add it"
        case "union_tag_invalid":
            return f"unknown name {context['tag']!r}; {did_you_mean(context['tag'], _quoted(context['expected_tags']))}"
        case "union_tag_not_found":
            return f"{context['discriminator']} is missing; add it to say which one this is"
        case "literal_error":
            return f"{details['input']!r} is not allowed; write {context['expected']}"
        case "value_error":
            return details["msg"].removeprefix("Value error, ")
        case "string_pattern_mismatch":
            return f"{details['input']!r} does not match {context['pattern']}"
        case "string_type":
            return f"{details['input']!r} is not text; put it in quotes"
    what = details["msg"][0].lower() + details["msg"][1:]
    return f"{what.removeprefix('input ').removeprefix('value ')}, not {_shown(details['input'])}; correct the value"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _quoted(tags: str) -> list[str]:
    return re.findall(r"'([^']*)'", tags)


def _known_keys(location: Iterable[str | int], schema: Schema) -> list[str]:
    """Keys that the schema knows at an error's location, whose parts are keys, indices and names of union members."""
    definitions = schema["$defs"]
    node: Schema = schema
    for part in location:
        node = _resolve(node, definitions)
        if isinstance(part, int):
            node = node["items"]
        elif part in node.get("properties", {}):
            node = node["properties"][part]
        else:
            node = definitions[node["discriminator"]["mapping"][part].rpartition("/")[2]]
    return list(_resolve(node, definitions).get("properties", {}))


def _resolve(node: Schema, definitions: Schema) -> Schema:
    return definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node

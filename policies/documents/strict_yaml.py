"""Strict YAML: JSON-like values with the line of every field, and nothing of YAML that surprises.

Plain scalars resolve as in the YAML 1.2 core schema (`no` and `on` are text, `1e-4` is a number), except hexadecimal
and octal numbers, which stay text. A key is always text. Refused: duplicate keys, keys that are lists or mappings,
anchors and aliases, tags, NaN and infinity, deep nesting, large files.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import yaml
from pydantic import JsonValue

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

FieldPath = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, JsonValue] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_MAX_DIGITS = 18
"""Of an integer: more don't fit 64 bits."""


class YamlProblem(NamedTuple):
    """What is wrong with a document, and where."""

    line: int
    path: FieldPath
    what: str


class YamlDocument(NamedTuple):
    """One document: its value, and the line of the document (path `()`) and of every key and item below it."""

    value: JsonValue
    lines: dict[FieldPath, int]
    problems: tuple[YamlProblem, ...]


class _RefusedError(Exception):
    """Stops the composition of nodes at something that is never built."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(line, what)
        self.problem = YamlProblem(line, (), what)


class _Composer(yaml.BaseLoader):
    """Composes nodes without resolving scalars; aliases and deep nesting are refused while composing."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _RefusedError(line, "anchors and aliases are not allowed; write the value out")
        if getattr(event, "tag", None):
            raise _RefusedError(line, f"tag {event.tag} is not allowed; remove it")
        if self.depth >= MAX_DEPTH:
            raise _RefusedError(line, f"nested deeper than {MAX_DEPTH} levels; no policy needs that")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse_documents(content: bytes) -> tuple[YamlDocument, ...]:
    """All documents of a YAML file. What can't be read at all comes back as one document with that problem."""
    try:
        text = _decode(content)
        composer = _Composer(text)
        documents = []
        while composer.check_node():
            root = composer.get_node()
            assert root is not None
            documents.append(_build(root))
    except _RefusedError as refused:
        return (_unreadable(refused.problem),)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return (_unreadable(YamlProblem(line, (), f"not YAML: {error.problem}; correct the syntax")),)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        return (_unreadable(YamlProblem(line, (), f"character #x{error.character:04x}: not allowed; remove it")),)
    return tuple(documents)


def _decode(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise _RefusedError(1, f"larger than {MAX_BYTES} bytes; split it into several files")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _RefusedError(line, f"byte {error.start} is not UTF-8; save the file as UTF-8") from error


def _unreadable(problem: YamlProblem) -> YamlDocument:
    return YamlDocument(None, {(): problem.line}, (problem,))


def _build(root: yaml.Node) -> YamlDocument:
    lines: dict[FieldPath, int] = {(): root.start_mark.line + 1}
    problems: list[YamlProblem] = []
    value = _value(root, (), lines, problems)
    return YamlDocument(value, lines, tuple(problems))


def _value(node: yaml.Node, path: FieldPath, lines: dict[FieldPath, int], problems: list[YamlProblem]) -> JsonValue:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, problems)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[*path, index] = item.start_mark.line + 1
        return [_value(item, (*path, index), lines, problems) for index, item in enumerate(node.value)]
    assert isinstance(node, yaml.ScalarNode)
    if node.style is not None:
        return str(node.value)
    try:
        return _plain_scalar(node.value)
    except ValueError as error:
        problems.append(YamlProblem(node.start_mark.line + 1, path, str(error)))
        return None


def _mapping(
    node: yaml.MappingNode, path: FieldPath, lines: dict[FieldPath, int], problems: list[YamlProblem]
) -> dict[str, JsonValue]:
    mapping: dict[str, JsonValue] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(YamlProblem(line, path, "a key is not text; write a name before the colon"))
            continue
        key = str(key_node.value)
        if key in mapping:
            first = lines[*path, key]
            problems.append(YamlProblem(line, (*path, key), f"key given twice, first in line {first}; remove one"))
            continue
        lines[*path, key] = line
        mapping[key] = _value(value_node, (*path, key), lines, problems)
    return mapping


def _plain_scalar(text: str) -> JsonValue:
    """The value of an unquoted scalar; a ValueError says why it has none."""
    if text in _WORDS:
        return _WORDS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number; write a number")
    if _INTEGER.fullmatch(text):
        if len(text) > _MAX_DIGITS:
            raise ValueError(f"an integer of {len(text)} digits is too large; write a smaller one")
        return int(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise ValueError(f"{text} is not a finite number; write a smaller one")
        return number
    return text

"""What is found while a row is checked, and the checks that every part of a row shares."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, TypeGuard

from policies.datasets.problems import DatasetProblem

Json = Any  # Any: a parsed JSON value of unknown shape; the rules of rows are what give it one

MAX_DEPTH = 32
MAX_PROBLEMS_PER_ROW = 20
FORBIDDEN_CHARACTER = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\U00100000-\U0010ffff]")
"""The last area of private use among them: its characters stand for special tokens (`policies.rendering`)."""
UNSUPPORTED = frozenset(
    {"tool_calls", "tool_call_id", "function_call", "name", "refusal", "audio", "functions", "annotations"}
)
"""Fields of OpenAI's format that have no place where they stand; naming them apart spares users a hunt for a typo. Null
or empty, as exported completions have them, they say nothing and are passed over."""
_MEANINGFUL = frozenset(
    {
        *("messages", "tools", "functions", "parallel_tool_calls", "preferred_output", "non_preferred_output"),
        *("preferred_completion", "non_preferred_completion"),
        *("system", "system_prompt", "system_message", "instruction", "instructions", "input", "output", "prompt"),
        *("completion", "response", "answer", "question", "context", "history", "documents", "text", "texts"),
        *("image", "images", "audio", "audios", "video", "videos", "tool_calls", "tool_choice", "function_call"),
        *("response_format", "weight", "weights", "chosen", "rejected", "conversations", "contents", "thinking"),
        *("reasoning", "reasoning_content", "reasoning_effort", "chat_template", "chat_template_kwargs", "modalities"),
    }
)
"""Keys of a row that say something to the model, or how it is trained; without them the row would be another one."""
_TOO_LIKE = 0.8
"""Likeness from which on a key is a misspelt one of ours."""
_MAX_EXTRA_KEYS = 20
Note = tuple[str, str]
"""Code of a warning that is told once for a file, with how many rows it holds for; and the field."""


class Findings:
    """The problems of one line, at most `MAX_PROBLEMS_PER_ROW`, and what is told of its file as a whole."""

    def __init__(self, line: int) -> None:
        self.line = line
        self.problems: list[DatasetProblem] = []
        self.n_found = 0
        """Problems, those that are not kept among them."""
        self.notes: dict[Note, None] = {}

    def add(self, code: str, field: str | None = None, **details: object) -> None:
        self.n_found += 1
        if len(self.problems) < MAX_PROBLEMS_PER_ROW:
            self.problems.append(DatasetProblem.of(code, self.line, field, **details))

    def note(self, code: str, field: str) -> None:
        self.notes[code, field] = None


def check_keys(value: dict[str, Json], known: tuple[str, ...], *, findings: Findings, at: str = "") -> None:
    for key in value:
        if key not in known and not (key in UNSUPPORTED and value[key] in (None, [])):
            code = "unsupported_field" if key in UNSUPPORTED else "unknown_field"
            findings.add(code, at + shown_key(key))


def check_row_keys(value: dict[str, Json], known: tuple[str, ...], findings: Findings) -> None:
    """Keys beside the row's own: those that only say where it comes from (`id`, `metadata`) are noted, not refused."""
    extra = [key for key in value if key not in known]
    for index, key in enumerate(extra):
        name = key[:40].casefold()
        says_something = value[key] not in (None, "", [], {}) and (name in _MEANINGFUL or _is_like(name, known))
        if says_something or index >= _MAX_EXTRA_KEYS:
            findings.add("unsupported_field" if key in UNSUPPORTED else "unknown_field", shown_key(key))
        else:
            findings.note("extra_field", shown_key(key))


@lru_cache(maxsize=1024)
def _is_like(name: str, known: tuple[str, ...]) -> bool:
    return bool(get_close_matches(name, known, n=1, cutoff=_TOO_LIKE))


def shown_key(key: str) -> str:
    """A key as paths and messages have it."""
    return ascii(key[:40])[1:-1]


def strings(value: Json, at: str, findings: Findings | None = None, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every string in a JSON value, keys too, with its path; reports what is nested too deeply and stops there."""
    if isinstance(value, str):
        yield at, value
    elif depth > MAX_DEPTH:
        if findings is not None:
            findings.add("too_deep", at, limit=MAX_DEPTH)
    elif isinstance(value, dict):
        for key, inner in value.items():
            path = f"{at}.{shown_key(key)}"
            yield path, key
            yield from strings(inner, path, findings, depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, f"{at}[{index}]", findings, depth + 1)


def check_text(text: str, at: str, findings: Findings) -> None:
    if found := FORBIDDEN_CHARACTER.search(text):
        character = found.group()
        code = "lone_surrogate" if "\ud800" <= character <= "\udfff" else "control_character"
        findings.add(code, at, character=f"U+{ord(character):04X}")


def is_list(value: Json) -> TypeGuard[list[Json]]:
    return isinstance(value, list)


def kind(value: Json) -> str:
    """The JSON name of a value's type."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")

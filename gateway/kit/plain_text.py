"""Text that every database can hold, every client can read and every log can print."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""NUL, which PostgreSQL can't hold, and halves of surrogate pairs, which UTF-8 has no form for."""


def unstorable_character(text: str) -> str | None:
    """The first character that can't be stored, as `U+0000`; None where all can."""
    found = UNSTORABLE.search(text)
    return None if found is None else f"U+{ord(found[0]):04X}"


def unstorable_character_in(value: JsonValue) -> str | None:
    """The same for all keys and texts of a JSON value."""
    return next((found for text in _texts(value) if (found := unstorable_character(text)) is not None), None)


def _texts(value: JsonValue) -> Iterator[str]:
    """Without recursion, which a hostile document could exhaust."""
    left: list[JsonValue] = [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict):
            left += [*part, *part.values()]
        elif isinstance(part, list):
            left += part

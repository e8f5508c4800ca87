"""Text of others on a terminal."""

from __future__ import annotations

import re

_CODES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and line feed, and those that turn the direction of what follows."""


def printable(text: str) -> str:
    """The text without what a terminal would obey."""
    return _CODES.sub("\N{REPLACEMENT CHARACTER}", text)

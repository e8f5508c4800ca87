"""Characters that people don't see and models read: tags, zero-width characters, direction overrides."""

from __future__ import annotations

import re

_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
"""Flags of regions, e.g. Scotland's, are spelt with tag characters."""
_INVISIBLE = re.compile(
    "[\u200b\u2060-\u2064\u206a-\u206f\ufeff\u180e"  # zero-width; joiners (200C, 200D) are part of ordinary writing
    "\u202a-\u202e\u2066-\u2069"  # direction overrides and isolates
    "\ufff9-\ufffb\U000e0000-\U000e007f]"  # annotations and tags
)
MAX_LISTED = 5


def invisible_characters(text: str) -> str | None:
    """The code points found, each once, e.g. `U+200B, U+202E`; None if there is none."""
    if text.isascii():
        return None
    found = dict.fromkeys(_INVISIBLE.findall(_FLAG.sub("", text)))
    listed = ", ".join(f"U+{ord(character):04X}" for character in list(found)[:MAX_LISTED])
    return f"{listed}, …" if len(found) > MAX_LISTED else listed or None

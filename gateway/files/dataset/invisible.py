"""Characters that people don't see and models read: tags, zero-width characters, direction overrides, selectors.

Which they are, Unicode's properties say: format characters (Cf), default ignorable code points, and letters that are
blank. Where a character belongs to ordinary writing it is not reported: joiners after emoji and after letters of
scripts that join, one variation selector after what it selects a form of, direction marks in text of both directions,
and the tags that spell the flags of regions.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
import numpy.typing as npt

MAX_LISTED = 5
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f")
"""Flags of regions, e.g. Scotland's, are spelt with tag characters."""
_FORMAT_BLOCKS = ((0x80, 0x2100), (0xFE00, 0x10000), (0x1BC00, 0x1BD00), (0x1D100, 0x1D200))
"""Where Unicode has format characters."""
_SHOWN_FORMATS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2")
"""Signs that enclose the number after them: format characters that are seen (Prepended_Concatenation_Mark)."""
_IGNORABLE = (
    ("\u034f", "\u034f"),  # combining grapheme joiner
    ("\u115f", "\u1160"),  # fillers of Hangul
    ("\u17b4", "\u17b5"),  # vowels of Khmer that are not shown
    ("\u180b", "\u180f"),  # Mongolian selectors and vowel separator
    ("\u2028", "\u2029"),  # line and paragraph separator
    ("\u2065", "\u2065"),
    ("\u2800", "\u2800"),  # the blank of Braille
    ("\u3164", "\u3164"),
    ("\ufe00", "\ufe0f"),  # variation selectors
    ("\uffa0", "\uffa0"),
    ("\ufff0", "\ufff8"),
    ("\U000e0000", "\U000e0fff"),  # tags, more selectors, and what is reserved for such
)
"""Default ignorable code points that are no format characters, and blank ones: first and last of each range."""
_JOINERS, _DIRECTION_MARKS = "\u200c\u200d", "\u200e\u200f\u061c"
_IDEOGRAPHS = "\u2e80"
"""From here on letters are ideographs, of which selectors choose forms."""


def may_be_in(text: str) -> bool:
    """Whether a text holds any such character, ordinary or not; False is certain. Ten times as fast as a search."""
    if text.isascii():
        return False
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    return bool(_is_invisible().take(points).any())


def invisible_characters(text: str) -> str | None:
    """The code points found, each once, e.g. `U+200B, U+202E`; None if there is none."""
    if text.isascii():
        return None
    text = _FLAG.sub("", text)
    found: dict[str, None] = {}
    ordinary = _DIRECTION_MARKS if _right_to_left().search(text) else ""
    for match in _pattern().finditer(text):
        character = match.group()
        if character not in found and character not in ordinary and not _is_ordinary(text, match.start()):
            found[character] = None
            if len(found) > MAX_LISTED:
                break
    listed = ", ".join(f"U+{ord(character):04X}" for character in list(found)[:MAX_LISTED])
    return f"{listed}, …" if len(found) > MAX_LISTED else listed or None


@cache
def _formats() -> str:
    return "".join(
        chr(point)
        for block in _FORMAT_BLOCKS
        for point in range(*block)
        if unicodedata.category(chr(point)) == "Cf" and chr(point) not in _SHOWN_FORMATS
    )


@cache
def _pattern() -> re.Pattern[str]:
    return re.compile("[" + _formats() + "".join(f"{first}-{last}" for first, last in _IGNORABLE) + "]")


@cache
def _is_invisible() -> npt.NDArray[np.bool_]:
    """Of each code point."""
    table = np.zeros(0x110000, np.bool_)
    table[[ord(character) for character in _formats()]] = True
    for first, last in _IGNORABLE:
        table[ord(first) : ord(last) + 1] = True
    return table


def _is_ordinary(text: str, place: int) -> bool:
    """Whether the invisible character does there what it is for."""
    character, before = text[place], text[place - 1] if place else ""
    category = unicodedata.category(before) if before and not before.isascii() else ""
    if character in _JOINERS:
        return category in ("Lo", "Mc", "Mn", "So", "Sk")
    if character in "\ufe0e\ufe0f":
        is_keycap = before in tuple("0123456789#*") and text[place + 1 : place + 2] == "\u20e3"
        return is_keycap or category in ("So", "Sm", "Po", "Pd", "Sk")
    if "\ufe00" <= character <= "\ufe02" or "\U000e0100" <= character <= "\U000e01ef":
        return category == "Lo" and before >= _IDEOGRAPHS
    return "\u180b" <= character <= "\u180f" and "\u1820" <= before <= "\u18aa"


@cache
def _right_to_left() -> re.Pattern[str]:
    """Letters of the blocks that are written from right to left."""
    blocks = "\u05d0-\u061b\u0620-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
    return re.compile(f"[{blocks}]")

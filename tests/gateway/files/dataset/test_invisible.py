"""Every kind of character that is read and not seen, and none that ordinary writing needs."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import pytest

from gateway.files.dataset.invisible import invisible_characters
from tests.growth import LINEAR, growth

KINDS = {
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "Arabic letter mark": "\u061c",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "Khmer vowels": "\u17b4\u17b5",
    "Mongolian selectors": "\u180b\u180c\u180d\u180f",
    "Mongolian vowel separator": "\u180e",
    "zero-width space": "\u200b",
    "zero-width joiners": "\u200c\u200d",
    "direction marks": "\u200e\u200f",
    "separators": "\u2028\u2029",
    "direction overrides": "\u202a\u202b\u202c\u202d\u202e",
    "word joiner": "\u2060",
    "invisible operators": "\u2061\u2062\u2063\u2064",
    "direction isolates": "\u2066\u2067\u2068\u2069",
    "deprecated formats": "\u206a\u206f",
    "blank of Braille": "\u2800",
    "variation selectors": "\ufe00\ufe0f",
    "byte order mark": "\ufeff",
    "annotations": "\ufff9\ufffa\ufffb",
    "shorthand": "\U0001bca0\U0001bca3",
    "musical": "\U0001d173\U0001d17a",
    "tags": "\U000e0001\U000e0020\U000e007f",
    "more selectors": "\U000e0100\U000e01ef",
    "reserved": "\u2065\ufff0\U000e0fff",
}


@pytest.mark.parametrize("characters", KINDS.values(), ids=KINDS)
def test_each_kind_is_found_between_latin_letters(characters: str) -> None:
    for character in characters:
        assert invisible_characters(f"a{character}b") == f"U+{ord(character):04X}"
        assert invisible_characters(character) == f"U+{ord(character):04X}"


def test_every_format_character_is_found_unless_it_is_seen() -> None:
    """Signs that stand around a number, and the controls by which hieroglyphs are arranged."""
    formats = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) == "Cf"]
    missed = [character for character in formats if not invisible_characters(f"a{character}b")]
    names = {unicodedata.name(character) for character in missed}
    assert len(formats) > 160
    assert all(name.startswith(("ARABIC", "SYRIAC", "KAITHI", "EGYPTIAN")) for name in names), names


@pytest.mark.parametrize(
    "text",
    [
        "\U0001f468\u200d\U0001f469",
        "\U0001f44d\U0001f3fd\u200d",
        "\u2764\ufe0f",
        "1\ufe0f\u20e3",
        "می\u200cروم",
        "क्\u200dष",
        "\U0001f3f4\U000e0067\U000e0062\U000e007f",
        "שלום\u200f, abc\u200e",
        "葛\U000e0100",
        "ᠰ\u180b",
        "﷽ ½ é — … “”",
        "٪ \u06dd",
    ],
)
def test_ordinary_writing_is_not_reported(text: str) -> None:
    assert invisible_characters(text) is None


@pytest.mark.parametrize("text", ["\u2764\ufe0f\ufe0f", "葛\U000e0100\U000e0101", "a\u200d\u200d", "\u0301\ufe0e"])
def test_a_run_of_selectors_is_no_ordinary_writing(text: str) -> None:
    """Bytes can be written as selectors, one after the other, behind any character."""
    assert invisible_characters(text) is not None


def test_five_are_listed() -> None:
    assert invisible_characters("\u200b\u2060\u2061\u2062\u2063\u2064") == "U+200B, U+2060, U+2061, U+2062, U+2063, …"


@pytest.mark.parametrize(
    "make",
    [
        lambda n: "é" + "\u200d" * n,
        lambda n: "\u200f" * n + "ש",
        lambda n: "\u200f" * n,
        lambda n: "\U0001f3f4\U000e0067" * n,
        lambda n: "\U0001f3f4" + "\U000e0067" * n,
        lambda n: "\u2764\ufe0f" * n,
    ],
)
def test_search_is_linear(make: Callable[[int], str]) -> None:
    assert growth(make, invisible_characters, 60_000) < LINEAR

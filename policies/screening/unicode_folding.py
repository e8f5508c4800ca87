"""What a text says once ways to write the same characters are folded, for patterns that need case and punctuation.

`policies.datasets.folding` leaves letters alone, which is right for comparing texts and no use for a pattern such as
`ghp_…`. Here each character becomes its compatibility form (NFKC), a letter of another script that looks like a Latin
one becomes that (the part of UTS #39's confusables that `LOOKALIKES` holds), digits and dashes of all scripts become
ASCII, tag characters become the letters that they hide, and invisible and control characters and combining marks go.

Each character is folded by itself and remembered, so a text costs what its length says; see `folding.py` for what
`unicodedata.normalize` would cost on a whole one. The longest compatibility form has 18 characters.
"""

from __future__ import annotations

import unicodedata

from policies.datasets.folding import BLANK_LETTERS, LOOKALIKES, NAMED_LATIN

FOLDING_VERSION = "2"
_TAGS = range(0xE0020, 0xE007F)
_MAX_REMEMBERED = 1 << 16
_BLANKS = BLANK_LETTERS | {"\u2800"}
"""Nothing on the screen, though letters or, the last one, a symbol by their category."""
_WITHOUT_CONTROLS = dict.fromkeys({*range(0x20), 0x7F} - set(b"\t\n\r"))


def fold(text: str) -> str:
    """The text as ASCII as can be; itself where it is ASCII already."""
    return text.translate(_WITHOUT_CONTROLS if text.isascii() else _FOLDED)


class _Folded(dict[int, str]):
    """What each character that was met becomes."""

    def __missing__(self, point: int) -> str:
        folded = _folded(chr(point))
        if len(self) < _MAX_REMEMBERED:
            self[point] = folded
        return folded


_FOLDED = _Folded()


def _folded(character: str) -> str:
    if ord(character) in _WITHOUT_CONTROLS or character in _BLANKS:
        return ""
    if ord(character) in _TAGS:
        return chr(ord(character) - _TAGS.start + 0x20)
    named = NAMED_LATIN.fullmatch(unicodedata.name(character, ""))
    if named is not None:
        return named[1].lower() if character.islower() else named[1]
    return "".join(map(_one, unicodedata.normalize("NFKC", character)))


def _one(part: str) -> str:
    if part.isascii():
        return part
    category = unicodedata.category(part)
    if category == "Nd":
        return str(unicodedata.digit(part))
    if category == "Pd" or part == "\u2212":
        return "-"
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if category in ("Cc", "Cf", "Mn", "Me"):
        return ""
    if (alike := LOOKALIKES.get(part)) is not None:
        return alike
    alike = LOOKALIKES.get(part.lower())
    return alike.upper() if alike is not None and part.isupper() else part

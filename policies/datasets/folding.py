"""What is left of a text when ways to write the same letters are folded together: one byte a letter, in linear time.

Folded are compatibility forms (fullwidth, mathematical, circled), case, accents, letters of other scripts that look
like Latin ones (the common part of UTS #39's confusables), and 0/o and 1/i/l. Left out is what is no letter or digit:
white space, punctuation, symbols, combining marks, and every invisible character.

Each character is folded by itself, so a text costs what its length says. `unicodedata.normalize` on a whole text sorts
each run of combining marks, which takes quadratic time: 0.4 MB of them kept a processor busy for minutes. Marks are
left out here, so their order does not matter, and of the Hangul letters that compose, each syllable is composed apart.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

SEPARATOR = "\0"
"""Stands between texts; no text of a training file holds it."""
_OMITTED, _UNKNOWN, _SEVERAL = 1, 2, 3
"""Codes of characters that are left out, that were not met yet, and that are folded to more than one letter."""
_COMMON_CODES = range(4, 32)
"""For the first sequences of letters that are met, one each: such a sequence is put in wherever it belongs at once."""
_UNKNOWN_BYTE, _OMITTED_BYTE, _SEVERAL_BYTE = bytes([_UNKNOWN]), bytes([_OMITTED]), bytes([_SEVERAL])
_PAGE_BITS = 8

LOOKALIKES = {
    # Cyrillic, by its small or capital form
    **dict(zip("авгекмнопрстухьѕіјԁһԛԝѵӏүҽ", "abrekmhonpctyxbsijdhqwvlye", strict=True)),
    # Greek
    **dict(zip("αβγεζηικμνορτυχω", "abyeznikmvoptuxw", strict=True)),
    # Armenian
    **dict(zip("օոսհյցզաք", "onuhjgqwp", strict=True)),
    # Latin letters that do not decompose
    **dict(zip("ıɑɡɩʋȷ", "iagiuj", strict=True)),
    # Cherokee and Lisu, which have the form of capitals
    **dict(zip("ᎠᎡᎢᎥᎪᎫᎬᎳᎷᎻᎽᏀᏃᏎᏔᏕᏙᏞᏟᏢᏦᏧ", "drtiajewmhygzbwsvlcpkj", strict=True)),
    **dict(zip("ꓐꓑꓓꓔꓖꓗꓙꓚꓜꓝꓟꓠꓡꓢꓣꓦꓧꓪꓫꓬꓮꓰꓲꓳꓴ", "bpdtgkjczfmnlsrvhwxyaeiou", strict=True)),
}
NAMED_LATIN = re.compile(
    r"(?:LATIN (?:SMALL|CAPITAL) LETTER|LATIN LETTER SMALL CAPITAL|REGIONAL INDICATOR SYMBOL LETTER"
    r"|(?:NEGATIVE )?(?:CIRCLED|SQUARED) LATIN CAPITAL LETTER) ([A-Z])(?: WITH .*)?"
)
_ALIKE = str.maketrans("i10", "llo")
BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5")
"""Letters by their category, and nothing on the screen."""
_HANGUL_LETTERS = re.compile("[\u1100-\u1112][\u1161-\u1175][\u11a8-\u11c2]?")

Codes = npt.NDArray[np.uint8]
_codes: Codes = np.full(0x110000, _UNKNOWN, np.uint8)
_several: dict[int, bytes] = {}
_common: dict[bytes, int] = {}
"""The codes of these sequences."""


@cache
def _ascii_table() -> tuple[bytes, bytes]:
    """For `bytes.translate`: what each byte becomes, and those that are left out."""
    folded = [letters(chr(code)) for code in range(128)]
    table = bytes(one[0] if one else 0 for one in folded).ljust(256, b"\0")
    return table, bytes(code for code, one in enumerate(folded) if not one and chr(code) != SEPARATOR)


def letters(character: str) -> bytes:
    """What one character is folded to: ASCII for Latin letters and digits, a byte above 127 for other letters."""
    named = NAMED_LATIN.fullmatch(unicodedata.name(character, ""))
    if named is not None:
        return named[1].lower().translate(_ALIKE).encode()
    if character in BLANK_LETTERS:
        return b""
    parts = character if "\uac00" <= character <= "\ud7a3" else unicodedata.normalize("NFKD", character)
    return b"".join(_letter(part) for part in parts.casefold())


def _letter(part: str) -> bytes:
    part = LOOKALIKES.get(part, part).translate(_ALIKE)
    category = unicodedata.category(part)
    if part in BLANK_LETTERS or not (category[0] in "LN" or category == "Mc"):
        return b""
    if part.isascii():
        return part.encode()
    return bytes([0x80 | (ord(part) ^ (ord(part) >> 7)) & 0x7F])


def fold(texts: Sequence[str]) -> list[bytes]:
    """The letters of each text. A text that holds `SEPARATOR` would count as two: there is none in a training file."""
    joined = SEPARATOR.join(texts)
    if joined.isascii():
        table, omitted = _ascii_table()
        folded = joined.encode().translate(table, omitted)
    else:
        folded = _fold_wide(joined)
    parts = folded.split(SEPARATOR.encode())
    assert len(parts) == len(texts)
    return parts


def _fold_wide(text: str) -> bytes:
    points = _points(text)
    if _has_hangul_letters(points):
        text = _HANGUL_LETTERS.sub(lambda found: unicodedata.normalize("NFC", found.group()), text)
        points = _points(text)
    codes = _codes.take(points)
    while _UNKNOWN_BYTE in (folded := codes.tobytes()):
        _learn(int(points[folded.index(_UNKNOWN_BYTE)]) >> _PAGE_BITS)
        codes = _codes.take(points)
    if _SEVERAL_BYTE in folded:
        folded = _with_several(codes, points)
    for sequence, code in tuple(_common.items()):
        folded = folded.replace(bytes([code]), sequence)
    return folded.translate(None, _OMITTED_BYTE)


def _points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _has_hangul_letters(points: npt.NDArray[np.uint32]) -> bool:
    return bool(((points >= 0x1100) & (points < 0x1200)).any())


def _with_several(codes: Codes, points: npt.NDArray[np.uint32]) -> bytes:
    places = np.flatnonzero(codes == _SEVERAL)
    letters_there = [_several[point] for point in points[places].tolist()]
    n_letters = np.ones(len(codes), np.intp)
    n_letters[places] = [len(several) for several in letters_there]
    folded = codes.repeat(n_letters)
    folded[folded == _SEVERAL] = np.frombuffer(b"".join(letters_there), np.uint8)
    return folded.tobytes()


def _code_of(sequence: bytes) -> int:
    if sequence not in _common and len(_common) < len(_COMMON_CODES):
        _common[sequence] = _COMMON_CODES[len(_common)]
    return _common.get(sequence, _SEVERAL)


def _learn(page: int) -> None:
    """Fill in the codes of 256 characters; most texts need a few such pages of the 4,352."""
    for point in range(page << _PAGE_BITS, (page + 1) << _PAGE_BITS):
        folded = letters(chr(point))
        if chr(point) == SEPARATOR:
            _codes[point] = 0
        elif len(folded) == 1:
            _codes[point] = folded[0]
        elif folded:
            _codes[point], _several[point] = _code_of(folded), folded
        else:
            _codes[point] = _OMITTED

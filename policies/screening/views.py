r"""The forms in which a text is searched: as it is, folded, without escapes, and what base64 in it says.

A tool call's arguments are JSON in a string, and what a tool writes may be JSON again: there a letter of an escape
(`\n`) touches the token that follows it. Escapes are taken away twice; base64 is read one level deep.

A view costs time and memory in proportion to the text: folding is by character, an escape becomes something shorter,
and the decoded parts are together shorter than a few times the text.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from urllib.parse import unquote

from policies.screening.unicode_folding import fold

VIEWS_VERSION = "2"
_ESCAPE = re.compile(r"(?<!\\)\\++(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([nrt\"'/]))")
"""Of JSON and of most languages, behind any number of backslashes; each run of these is looked at once."""
_MEANS = {"n": "\n", "r": "\r", "t": "\t"}
_TIMES = 2
_RUN = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{14,}+")
"""What may be base64 of at least 10 bytes; each character is looked at once."""
_WRAPPED = re.compile(r"\n(?<=[A-Za-z0-9+/]{60}\n)[ \t>]{0,8}(?=[A-Za-z0-9+/=_-])")
"""A line break within base64: behind a full line of it, as MIME (76) and PEM (64) wrap."""
_GROUP = 4
_URL_SAFE = str.maketrans("-_", "+/")
_MIN_PRINTABLE = 0.8
"""Share of decoded bytes that are printable ASCII in what was text; of random bytes it is 0.38."""
_PRINTABLE = bytes([*range(0x20, 0x7F), 0x09, 0x0A, 0x0D])


def views(text: str) -> Iterator[str]:
    """The forms that differ, the text itself first."""
    yield text
    folded = fold(text)
    if folded is not text and folded != text:
        yield folded
    plain = unescaped(folded)
    if plain != folded:
        yield plain
    decoded = unescaped(fold("\n".join(_decoded(plain))))
    if decoded:
        yield decoded


def unescaped(text: str) -> str:
    """Without the escapes of JSON and of addresses (`%0A`), twice, and folded where any was taken away."""
    plain = text
    for _ in range(_TIMES):
        if "\\" in plain:
            plain = _joined(_ESCAPE.sub(_meaning, plain))
        if "%" in plain:
            plain = unquote(plain)
    return text if plain == text else fold(plain)


def _meaning(escape: re.Match[str]) -> str:
    point = escape[1] or escape[2]
    return chr(int(point, 16)) if point else _MEANS.get(escape[3], escape[3])


def _joined(text: str) -> str:
    """With the two halves by which JSON writes a character above U+FFFF made one again."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _decoded(text: str) -> Iterator[str]:
    yield from _decoded_runs(text)
    unwrapped = _WRAPPED.sub("", text.replace("\r\n", "\n"))
    if unwrapped != text:
        yield from _decoded_runs(unwrapped)


def _decoded_runs(text: str) -> Iterator[str]:
    """A run may have something before it, a folder say, so each place in a group of four is tried as its beginning."""
    for run in _RUN.finditer(text):
        for start in range(_GROUP):
            content = decoded_run(run.group()[start:]).translate(None, b"\0")  # UTF-16 is text with zeros
            n_printable = len(content) - len(content.translate(None, _PRINTABLE))
            if content and n_printable >= _MIN_PRINTABLE * len(content):
                yield content.decode("ascii", "replace")


def decoded_run(run: str) -> bytes:
    """Of a run of the alphabet; what is left of a last group of four that is not whole is dropped where it can't be."""
    usable = len(run) - (len(run) % 4 == 1)
    padded = run[:usable].translate(_URL_SAFE) + "=" * (-usable % 4)
    return binascii.a2b_base64(padded)

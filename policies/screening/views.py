"""The forms in which a text is searched: as it is, folded, and what base64 in it says, one level deep.

A view costs time and memory in proportion to the text: folding is by character, and the decoded parts are together
shorter than the text.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator

from policies.screening.unicode_folding import fold

_RUN = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{14,}+")
"""What may be base64 of at least 10 bytes; each character is looked at once."""
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
    decoded = "\n".join(_decoded(folded))
    if decoded:
        yield decoded


def _decoded(text: str) -> Iterator[str]:
    for run in _RUN.finditer(text):
        content = decoded_run(run.group())
        n_printable = len(content) - len(content.translate(None, _PRINTABLE))
        if content and n_printable >= _MIN_PRINTABLE * len(content):
            yield content.decode("ascii", "replace")


def decoded_run(run: str) -> bytes:
    """Of a run of the alphabet; what is left of a last group of four that is not whole is dropped where it can't be."""
    usable = len(run) - (len(run) % 4 == 1)
    padded = run[:usable].translate(_URL_SAFE) + "=" * (-usable % 4)
    return binascii.a2b_base64(padded)

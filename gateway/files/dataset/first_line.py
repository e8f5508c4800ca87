"""Whether a file whose name does not say so is JSONL: its first line is a JSON object."""

from __future__ import annotations

import codecs

from gateway.errors import InvalidRequest
from policies.datasets.shapes import CONVERT
from policies.datasets.strict_json import decode_line

EXTENSION = ".jsonl"
MAX_BYTES = 64 * 1024
"""Of a first line that is read as JSON; a longer one is taken if it begins as an object does."""
_BLANKS = b" \t\r"
"""What may stand before a value on its line."""


class FirstLine:
    """Given a file's bytes as they pass, of which it keeps those of the first line until it has judged them.

    What is called `*.jsonl` is taken at its word. The lines that follow are judged by the validator, in either case.
    """

    def __init__(self, filename: str) -> None:
        self._filename = filename
        self._is_judged = filename.lower().endswith(EXTENSION)
        self._begun = bytearray()

    def add(self, piece: bytes) -> None:
        """Raises `InvalidRequest` where the first line is complete and no JSON object."""
        if self._is_judged:
            return
        line, end, _ = piece[: MAX_BYTES + len(codecs.BOM_UTF8) + 1].partition(b"\n")
        self._begun += line
        if end or len(self._begun) > MAX_BYTES + len(codecs.BOM_UTF8):
            self._judge()

    def end(self) -> None:
        """The file has ended; raises `InvalidRequest` where it is one line, or none, and no JSON object."""
        if not self._is_judged:
            self._judge()

    def _judge(self) -> None:
        self._is_judged = True
        content = bytes(self._begun).removeprefix(codecs.BOM_UTF8)
        self._begun.clear()
        if len(content) > MAX_BYTES:
            if not content.lstrip(_BLANKS).startswith(b"{"):
                raise self._refused("line 1 does not begin with '{'")
            return
        value = decode_line(content, 1)
        if isinstance(value, tuple):
            raise self._refused(f"line 1: {value[0].message}")
        if not isinstance(value, dict):
            raise self._refused("line 1 is JSON, but no object")

    def _refused(self, reason: str) -> InvalidRequest:
        message = (
            f"The file {self._filename[:64]!r} is not JSONL: {reason}. Write each row as a JSON object on a line of "
            f"its own; if it is JSON, CSV or Parquet, {CONVERT}."
        )
        return InvalidRequest(message, "file", "unsupported_file")

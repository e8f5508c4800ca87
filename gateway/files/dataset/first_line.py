"""Whether a file whose name does not say so is JSONL: its first line is a JSON object."""

from __future__ import annotations

import codecs

from gateway.errors import InvalidRequest
from policies.datasets.reader import MAX_LINE_BYTES
from policies.datasets.shapes import CONVERT
from policies.datasets.strict_json import decode_line

EXTENSION = ".jsonl"


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
        line, end, _ = piece.partition(b"\n")
        self._begun += line
        if end or len(self._begun) > MAX_LINE_BYTES + len(codecs.BOM_UTF8):
            self._judge()

    def end(self) -> None:
        """The file has ended; raises `InvalidRequest` where it is one line, or none, and no JSON object."""
        if not self._is_judged:
            self._judge()

    def _judge(self) -> None:
        self._is_judged = True
        content = bytes(self._begun).removeprefix(codecs.BOM_UTF8)
        self._begun.clear()
        if len(content) > MAX_LINE_BYTES:
            raise self._refused(f"line 1 has more than {MAX_LINE_BYTES} bytes")
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

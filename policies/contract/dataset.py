"""Chat JSONL, read by one parser: the gateway validates with it and the trainer trains from it.

A row is `{"messages": [{"role", "content", "weight"?}, …], "tools"?, "parallel_tool_calls"?}`. Every line is either a
`ChatRow` or at least one problem; nothing is repaired or skipped. Accepted with a note: a byte order mark at the start
and CR LF line ends. Library parsers let duplicate keys, NaN and 1e999 through; this one does not.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from policies.contract.dataset_problems import DatasetProblem
from policies.contract.dataset_rows import MAX_DEPTH, ChatMessage, ChatRow, Json, check_row
from policies.errors import DatasetError

__all__ = ["MAX_LINE_BYTES", "ChatMessage", "ChatRow", "ParsedLine", "iter_rows", "parse_line", "read_rows"]

MAX_LINE_BYTES = 1 << 20


class ParsedLine(NamedTuple):
    """One line of a file: a row, or why it is none."""

    number: int
    """Counted from 1."""
    row: ChatRow | None
    problems: tuple[DatasetProblem, ...] = ()
    has_bom: bool = False
    has_crlf: bool = False


class _RefusedError(ValueError):
    """JSON that the standard parser would take."""

    def __init__(self, code: str, **details: str) -> None:
        super().__init__(code)
        self.code = code
        self.details = details


def iter_rows(stream: IO[bytes]) -> Iterator[ParsedLine]:
    """Every line of `stream`, in order; holds one line of at most `MAX_LINE_BYTES` at a time."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES + 5):  # 5: room for the byte order mark and CR LF
        number += 1
        has_bom = number == 1 and line.startswith(codecs.BOM_UTF8)
        content = line.removeprefix(codecs.BOM_UTF8) if has_bom else line
        if not content:
            return
        has_crlf = content.endswith(b"\r\n")
        content = content.removesuffix(b"\r\n" if has_crlf else b"\n")
        if len(content) > MAX_LINE_BYTES:
            _skip_rest_of_line(stream, line)
            parsed = _refuse(number, "line_too_long", limit=MAX_LINE_BYTES)
        else:
            parsed = parse_line(content, number)
        yield parsed._replace(has_bom=has_bom, has_crlf=has_crlf)


def _skip_rest_of_line(stream: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(MAX_LINE_BYTES)


def parse_line(content: bytes, number: int) -> ParsedLine:
    """One line without its line end."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return _refuse(number, "invalid_utf8", byte=error.start + 1)
    if not text.strip():
        return _refuse(number, "blank_line")
    try:
        value = _DECODER.decode(text)
    except _RefusedError as refused:
        return _refuse(number, refused.code, **refused.details)
    except RecursionError:
        return _refuse(number, "too_deep", limit=MAX_DEPTH)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _refuse(number, "trailing_data", column=error.colno)
        return _refuse(number, "invalid_json", detail=f"{error.msg} at column {error.colno}")
    except ValueError:  # an integer of more digits than Python converts
        return _refuse(number, "non_finite_number", number="an integer of thousands of digits")
    checked = check_row(value, number)
    return ParsedLine(number, checked) if isinstance(checked, ChatRow) else ParsedLine(number, None, checked)


def read_rows(path: Path) -> list[ChatRow]:
    """All rows of a file; raises `DatasetError` on the first line that is none."""
    rows = []
    with path.open("rb") as stream:
        for line in iter_rows(stream):
            if line.row is None:
                raise DatasetError(f"{path.name}: {line.problems[0]}")
            rows.append(line.row)
    return rows


def _refuse(number: int, code: str, /, **details: object) -> ParsedLine:
    return ParsedLine(number, None, (DatasetProblem.of(code, number, **details),))


def _unique_keys(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]  # add is None
        raise _RefusedError("duplicate_key", key=ascii(twice[:40]))
    return value


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _RefusedError("non_finite_number", number=text[:40])
    return number


def _no_constant(text: str) -> float:
    raise _RefusedError("non_finite_number", number=text)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_float=_finite, parse_constant=_no_constant)

"""Training files as JSONL, read by one parser: the gateway validates with it and the trainer trains from it.

A chat row is `{"messages": [{"role", "content", "weight"?}, …], "tools"?, "parallel_tool_calls"?}`, a preference row is
described in `preference_rows.py`. Every line is either a row or at least one problem; nothing is repaired or skipped.
Accepted with a note: a byte order mark at the start and CR LF line ends.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Generic, NamedTuple, TypeVar, cast

import msgspec

from policies.datasets.chat_rows import ChatMessage, ChatRow, check_row
from policies.datasets.plain_rows import Decode, decode_any, decode_chat, decode_preference, plain_rows
from policies.datasets.preference_rows import PreferenceRow, check_preference, is_preference
from policies.datasets.problems import DatasetProblem
from policies.datasets.row_findings import Json
from policies.datasets.shapes import other_shape
from policies.datasets.strict_json import decode_line, refusal
from policies.errors import DatasetError

__all__ = [
    "MAX_LINE_BYTES",
    "AnyRow",
    "ChatMessage",
    "ChatRow",
    "Line",
    "ParsedLine",
    "PreferenceRow",
    "check_line",
    "iter_any_batches",
    "iter_any_rows",
    "iter_rows",
    "iter_values",
    "parse_line",
    "read_conversations",
    "read_preferences",
    "read_rows",
]

MAX_LINE_BYTES = 1 << 20
BATCH_BYTES = 1 << 18
"""Lines of about so many bytes are looked at together; one line may be longer."""
MAX_BLANK_LINES = 1000
"""More of them are no end of a file but a flood."""
LINE_OVERHEAD_BYTES = 200
"""What a line costs beside its content: blank lines fill a batch too."""
AnyRow = ChatRow | PreferenceRow
Row = TypeVar("Row", bound=AnyRow)
Check = Callable[[Json, int], Row | tuple[DatasetProblem, ...]]
"""The rules of one kind of row: JSON value and line number → the row, or all that is wrong with it."""


class Line(msgspec.Struct, Generic[Row], frozen=True, gc=False):
    """One line of a file: a row, or why it is none."""

    number: int
    """Counted from 1."""
    row: Row | None
    problems: tuple[DatasetProblem, ...] = ()
    has_bom: bool = False
    has_crlf: bool = False
    is_plain: bool = False
    """Its row came the fast way: it has no tool, and no message of one."""


ParsedLine = Line[ChatRow]


class _Rules(NamedTuple, Generic[Row]):
    """How lines of one kind are read: most by the fast way, and what it leaves by the rules."""

    decode: Decode
    check: Check[Row]


class _RawLine(msgspec.Struct, frozen=True, gc=False):
    number: int
    content: bytes | None
    """Without its end; None where it is too long."""
    has_bom: bool
    has_crlf: bool


def iter_rows(stream: IO[bytes]) -> Iterator[ParsedLine]:
    """Every line of a chat file, in order; holds about `BATCH_BYTES` of them, or one line of `MAX_LINE_BYTES`."""
    return _lines(stream, _CHAT_RULES)


def iter_any_rows(stream: IO[bytes]) -> Iterator[Line[AnyRow]]:
    """Every line of a file of either kind; what a line is shows in its keys."""
    return _lines(stream, _ANY_RULES)


def iter_any_batches(stream: IO[bytes]) -> Iterator[list[Line[AnyRow]]]:
    """The same lines, as many at a time as are looked at together."""
    return _batches(stream, _ANY_RULES)


def iter_values(stream: IO[bytes]) -> Iterator[tuple[int, Json | tuple[DatasetProblem, ...]]]:
    """The number of each line with its JSON value, be it a row of ours or not, or with why it has none."""
    for raw in _raw_lines(stream):
        if raw.content is None:
            yield raw.number, _too_long(raw.number)
        else:
            yield raw.number, decode_line(raw.content, raw.number)


def _check_any(value: Json, line: int) -> AnyRow | tuple[DatasetProblem, ...]:
    return check_preference(value, line) if is_preference(value) else check_row(value, line)


def _lines(stream: IO[bytes], rules: _Rules[Row]) -> Iterator[Line[Row]]:
    return itertools.chain.from_iterable(_batches(stream, rules))


def _batches(stream: IO[bytes], rules: _Rules[Row]) -> Iterator[list[Line[Row]]]:
    batch: list[_RawLine] = []
    n_bytes = 0
    for raw in _raw_lines(stream):
        batch.append(raw)
        n_bytes += len(raw.content or b"") + LINE_OVERHEAD_BYTES
        if n_bytes >= BATCH_BYTES:
            yield list(_parsed(batch, rules))
            batch, n_bytes = [], 0
    if batch:
        yield list(_parsed(batch, rules))


def _raw_lines(stream: IO[bytes]) -> Iterator[_RawLine]:
    """All lines but the blank ones at the end, of which the first `MAX_BLANK_LINES` are waited out."""
    blank: list[_RawLine] = []
    for raw in _all_lines(stream):
        if len(blank) < MAX_BLANK_LINES and raw.content is not None and not raw.content.strip():
            blank.append(raw)
            continue
        yield from blank
        blank.clear()
        yield raw
    if len(blank) == MAX_BLANK_LINES:
        yield from blank


def _all_lines(stream: IO[bytes]) -> Iterator[_RawLine]:
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
            yield _RawLine(number, None, has_bom, has_crlf)
        else:
            yield _RawLine(number, content, has_bom, has_crlf)


def _skip_rest_of_line(stream: IO[bytes], line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(MAX_LINE_BYTES)


def _parsed(batch: list[_RawLine], rules: _Rules[Row]) -> Iterator[Line[Row]]:
    plain = plain_rows([raw.content or b"" for raw in batch], rules.decode)
    for raw, row in zip(batch, plain, strict=True):
        number, content, has_bom, has_crlf = raw.number, raw.content, raw.has_bom, raw.has_crlf
        if row is not None:
            yield Line(number, cast("Row", row), (), has_bom, has_crlf, True)
        elif content is None:
            yield Line(number, None, _too_long(number), has_bom, has_crlf)
        else:
            checked = _checked(content, number, rules.check)
            if isinstance(checked, tuple):
                yield Line(number, None, checked, has_bom, has_crlf)
            else:
                yield Line(number, checked, (), has_bom, has_crlf)


def parse_line(content: bytes, number: int) -> ParsedLine:
    """One line of a chat file, without its line end."""
    checked = _checked(content, number, check_row)
    return Line(number, None, checked) if isinstance(checked, tuple) else Line(number, checked)


def check_line(content: bytes, number: int) -> tuple[DatasetProblem, ...]:
    """All that is wrong with one line of a file of either kind, without its line end."""
    checked = _too_long(number) if len(content) > MAX_LINE_BYTES else _checked(content, number, _check_any)
    return checked if isinstance(checked, tuple) else ()


def _checked(content: bytes, number: int, check: Check[Row]) -> Row | tuple[DatasetProblem, ...]:
    """A first line of another shape speaks for its file."""
    value = decode_line(content, number)
    if isinstance(value, tuple):
        return value
    return (other_shape(value) if number == 1 else ()) or check(value, number)


def read_rows(path: Path) -> list[ChatRow]:
    """All rows of a chat file; raises `DatasetError` on the first line that is none."""
    return _read(path, _CHAT_RULES)


def read_preferences(path: Path) -> list[PreferenceRow]:
    """All rows of a preference file; raises `DatasetError` on the first line that is none."""
    return _read(path, _PREFERENCE_RULES)


def read_conversations(path: Path) -> list[ChatRow]:
    """The conversations of a file of either kind, of preferences those with the better answer.

    Raises:
        DatasetError: a line is no row, or of another kind than the first one.
    """
    rows = _read(path, _ANY_RULES)
    for number, row in enumerate(rows, start=1):
        if row.kind != rows[0].kind:
            raise DatasetError(
                f"{path.name}: line {number} is a {row.kind} row, but line 1 is a {rows[0].kind} row; put them into "
                "separate files"
            )
    return [row.with_preferred() if isinstance(row, PreferenceRow) else row for row in rows]


def _read(path: Path, rules: _Rules[Row]) -> list[Row]:
    rows = []
    with path.open("rb") as stream:
        for line in _lines(stream, rules):
            if line.row is None:
                raise DatasetError(f"{path.name}: {line.problems[0]}")
            rows.append(line.row)
    return rows


def _too_long(number: int) -> tuple[DatasetProblem, ...]:
    return refusal(number, "line_too_long", limit=MAX_LINE_BYTES)


_CHAT_RULES = _Rules(decode_chat, check_row)
_PREFERENCE_RULES = _Rules(decode_preference, check_preference)
_ANY_RULES: _Rules[AnyRow] = _Rules(decode_any, _check_any)

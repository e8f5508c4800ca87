"""A whole file into the JSONL that is trained on: all of its rows, or nothing."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from pydantic import Field

from policies.atomic_files import new_file
from policies.contract.artifacts import Record
from policies.datasets.conversion.errors import RowNotConvertedError
from policies.datasets.conversion.rows import convert_row
from policies.datasets.conversion.sources import Source, SourceRow, open_source
from policies.datasets.problems import DatasetProblem
from policies.datasets.reader import check_line
from policies.datasets.shapes import NO_QUESTION, Shape, shape_of
from policies.errors import DatasetError

MAX_LISTED = 20
FIRST_ROWS = 10
"""That are asked for their shape."""


class RefusedRow(Record):
    """A row that was not written."""

    number: int
    reason: str


class Conversion(Record):
    """What became of a file."""

    shape: Shape | None
    """None: rows of ours."""
    unit: Literal["line", "row"]
    """What the numbers of refused rows count."""
    rows: int = Field(ge=0)
    """That were read."""
    converted: int = Field(ge=0)
    refused: int = Field(ge=0)
    is_written: bool
    first_refused: tuple[RefusedRow, ...] = Field(max_length=MAX_LISTED)
    changes: dict[str, int]
    """In how many of the converted rows something was changed."""


def convert_file(source: Path, target: Path, *, shape: Shape | None = None, skips_bad: bool = False) -> Conversion:
    """Write the rows of `source` to `target` in our form, each checked as training would.

    Args:
        shape: what the rows are read as; None looks at the first ones.
        skips_bad: write the others where rows are refused.

    Raises:
        DatasetError: the shape is not known or has no form of ours, or the file can't be read.
    """
    if target.exists() and target.samefile(source):
        raise DatasetError(f"{target} is the file that is read; write to another one")
    if not target.parent.is_dir():
        raise DatasetError(f"there is no folder {target.parent}; make it first")
    unit, rows = open_source(source)
    first = list(itertools.islice(rows, FIRST_ROWS))
    found = shape or _recognised(first, source)
    if found is Shape.TEXT_ONLY:
        raise DatasetError(f"{source.name}: rows of the shape {found} can't be converted: {NO_QUESTION}")
    work = _Work(Source(unit, itertools.chain(first, rows)), found)
    with new_file(target) as (stream, keep):
        work.run(stream)
        is_written = work.converted > 0 and (skips_bad or not work.refused)
        if is_written:
            keep()
    return work.report(is_written=is_written)


def _recognised(first: list[SourceRow], source: Path) -> Shape | None:
    values = [row.value for row in first if isinstance(row.value, dict)]
    shapes = [shape for value in values if (shape := shape_of(value))]
    if shapes:
        return shapes[0]
    if any(key in value for value in values for key in ("messages", "preferred_output", "preferred_completion")):
        return None
    keys = sorted({ascii(key[:40])[1:-1] for value in values for key in map(str, value)})
    raise DatasetError(
        f"{source.name}: the first rows are of no known shape; "
        + (f"their fields are {', '.join(keys[:MAX_LISTED])}" if keys else "none is an object with fields")
    )


class _Work:
    """What is known after some rows."""

    def __init__(self, source: Source, shape: Shape | None) -> None:
        self._source, self._shape = source, shape
        self.converted = self.refused = 0
        self._first_refused: list[RefusedRow] = []
        self._changes: Counter[str] = Counter()

    def run(self, stream: IO[bytes]) -> None:
        for line in self._lines():
            stream.write(line + b"\n")
            self.converted += 1

    def _lines(self) -> Iterator[bytes]:
        for row in self._source.rows:
            try:
                yield self._line(row)
            except RowNotConvertedError as error:
                self.refused += 1
                if len(self._first_refused) < MAX_LISTED:
                    self._first_refused.append(RefusedRow(number=row.number, reason=str(error)))

    def _line(self, row: SourceRow) -> bytes:
        if row.unreadable is not None:
            raise RowNotConvertedError(row.unreadable)
        made = convert_row(row.value, self._shape)
        line = _written(made.row)
        if problems := check_line(line, row.number):
            raise RowNotConvertedError("; ".join(map(_told, problems)))
        self._changes.update(set(made.changes))
        return line

    def report(self, *, is_written: bool) -> Conversion:
        return Conversion(
            shape=self._shape,
            unit=self._source.unit,
            rows=self.converted + self.refused,
            converted=self.converted,
            refused=self.refused,
            is_written=is_written,
            first_refused=tuple(self._first_refused),
            changes=dict(self._changes),
        )


def _written(row: dict[str, object]) -> bytes:
    try:
        text = json.dumps(row, ensure_ascii=False)
    except TypeError as error:  # Parquet has dates and bytes
        raise RowNotConvertedError("a value has no form in JSON") from error
    except RecursionError as error:
        raise RowNotConvertedError("a value is nested too deeply") from error
    return text.encode(errors="backslashreplace")  # half a surrogate pair, which the check names


def _told(problem: DatasetProblem) -> str:
    return f"{problem.field + ': ' if problem.field else ''}{problem.message} ({problem.code})"

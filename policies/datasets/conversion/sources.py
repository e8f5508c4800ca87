"""The rows of a file as JSON values, whatever holds them: JSONL, a JSON array, CSV, Parquet, or a folder of `datasets`.

A line that can't be read is a row too, with the reason; a file that can't be read is an error.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from policies.datasets.reader import MAX_LINE_BYTES, iter_values
from policies.datasets.row_findings import Json, is_list
from policies.datasets.strict_json import decode_line
from policies.errors import ConfigurationError, DatasetError

DELIMITERS = {".csv": ",", ".tsv": "\t"}


class SourceRow(NamedTuple):
    """A row of a file, or why it can't be read."""

    number: int
    value: Json
    unreadable: str | None = None


class Source(NamedTuple):
    """What a file holds."""

    unit: Literal["line", "row"]
    """What the numbers of its rows count, from 1."""
    rows: Iterator[SourceRow]


def open_source(path: Path) -> Source:
    """The rows of a file or folder; its name says what it is, and its first byte whether JSON is one array.

    Raises:
        ConfigurationError: a package that reads it is not installed.
        DatasetError: it can't be read, at once or while its rows are.
    """
    if path.is_dir():
        return Source("row", _rows_of_folder(path))
    if path.suffix == ".parquet":
        return Source("row", _rows_of_parquet(path))
    if path.suffix in DELIMITERS:
        return Source("line", _rows_of_csv(path))
    with path.open("rb") as stream:
        is_array = stream.read(MAX_LINE_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    return Source("row", _rows_of_array(path)) if is_array else Source("line", _rows_of_lines(path))


def _rows_of_lines(path: Path) -> Iterator[SourceRow]:
    with path.open("rb") as stream:
        for number, value in iter_values(stream):
            if isinstance(value, tuple):
                yield SourceRow(number, None, f"{value[0].message} ({value[0].code})")
            else:
                yield SourceRow(number, value)


def _rows_of_array(path: Path) -> Iterator[SourceRow]:
    value = decode_line(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), 1)
    if isinstance(value, tuple):
        raise DatasetError(f"{path.name}: {value[0].message}; it begins as a JSON array")
    assert is_list(value)
    yield from (SourceRow(number, row) for number, row in enumerate(value, start=1))


def _rows_of_csv(path: Path) -> Iterator[SourceRow]:
    csv.field_size_limit(MAX_LINE_BYTES)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.DictReader(stream, delimiter=DELIMITERS[path.suffix], strict=True)
        try:
            if len(set(rows.fieldnames or ())) < len(rows.fieldnames or ()):
                raise DatasetError(f"{path.name}: two columns have one name; rename one")
            for row in rows:
                is_whole = None not in row and None not in row.values()
                yield SourceRow(rows.line_num, row, None if is_whole else "not as many cells as the header has")
        except (csv.Error, UnicodeDecodeError) as error:
            raise DatasetError(f"{path.name}: line {rows.line_num + 1} is no CSV in UTF-8: {error}") from error


def _rows_of_parquet(path: Path) -> Iterator[SourceRow]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError as error:
        raise _missing("pyarrow", path) from error
    try:
        with ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(1024) for row in batch.to_pylist())
            yield from (SourceRow(number, row) for number, row in enumerate(rows, start=1))
    except ArrowException as error:
        raise DatasetError(f"{path.name}: not a Parquet file that can be read: {error}") from error


def _rows_of_folder(path: Path) -> Iterator[SourceRow]:
    try:
        from datasets import Dataset, load_from_disk
    except ModuleNotFoundError as error:
        raise _missing("datasets", path) from error
    try:
        loaded = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: not a folder that `Dataset.save_to_disk` has written") from error
    if not isinstance(loaded, Dataset):
        raise DatasetError(f"{path} has several splits: give the folder of one, {', '.join(map(str, loaded))}")
    yield from (SourceRow(number, dict(row)) for number, row in enumerate(loaded, start=1))


def _missing(package: str, path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} is read by the Python package {package}: pip install {package}")

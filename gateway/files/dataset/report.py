"""What validation answers about a training file."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field

from policies.contract.artifacts import Record
from policies.datasets.problems import DatasetProblem


class DatasetLimits(NamedTuple):
    """What a file is held to."""

    max_rows: int
    max_reported: int
    """Errors, and warnings apart, that are listed one by one; all are counted."""
    max_row_tokens: int | None = None
    """Most tokens of one row's texts; None where no base model is known yet."""
    min_rows: int = 10
    method: Literal["supervised", "dpo"] | None = None
    """What a job does with the file; None where no job is known yet."""


class TokenCounts(Record):
    """Tokens of the texts; the chat template adds a few per message when it renders them."""

    total: int = Field(0, ge=0)
    min: int | None = None
    """Fewest in one row, with both its answers; None where there is no row."""
    max: int | None = None
    mean: float | None = None
    is_approximate: bool
    """Counted as UTF-8 bytes / 4, because the base model's tokenizer is not at hand."""


class DatasetReading(NamedTuple):
    """What one pass over a file yields."""

    report: DatasetReport
    row_hashes: tuple[tuple[int, int], ...]
    """Line and hash of each row: equal for equal rows, however each is written down, within one process."""
    question_hashes: tuple[tuple[int, int], ...] = ()
    """The same of what is asked, but for blanks and case; only where two files are held against each other."""


class DatasetReport(Record):
    """All that is to say about a file. A job trains on it only if `valid`."""

    valid: bool
    summary: str
    kind: Literal["chat", "preference"] | None
    """Of the rows; None where there is none."""
    rows: int = Field(ge=0)
    """Lines that hold a row."""
    lines: int = Field(ge=0)
    """Lines that were read."""
    tokens: TokenCounts
    n_errors: int = Field(ge=0)
    n_warnings: int = Field(ge=0)
    errors: tuple[DatasetProblem, ...]
    warnings: tuple[DatasetProblem, ...]
    truncated: bool
    """More was found than is listed."""

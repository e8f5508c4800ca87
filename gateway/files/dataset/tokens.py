"""How many tokens rows have, and what the base model's chat template makes of them, found out without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from policies.datasets.problems import DatasetProblem
from policies.datasets.reader import AnyRow, PreferenceRow
from policies.datasets.row_findings import Note
from policies.rendering.answers import UnreadableRowError
from policies.rendering.encoding import Encoder, RowTexts, RowTokens

BYTES_PER_TOKEN = 4
"""About what byte-pair vocabularies reach on English."""
SAMPLE_BYTES = 4 << 20
"""Of text whose tokens are counted, to know how many bytes a token has in this file."""


class RowSize(NamedTuple):
    """One row's tokens."""

    tokens: int
    """With both answers of a preference, the conversation before them once."""
    longest: int
    """Of what is trained at once."""
    is_exact: bool
    problems: tuple[DatasetProblem, ...] = ()
    """What the base model's chat template does not take, or changes."""
    notes: tuple[Note, ...] = ()
    """What is told of the file as a whole."""


class RowSizes(Protocol):
    """Measures rows in their order."""

    are_all_exact: bool
    """So far."""

    def measure(self, rows: Sequence[tuple[int, AnyRow]]) -> list[RowSize]:
        """Rows with the numbers of their lines."""


class EstimatedSizes:
    """By bytes alone, where the base model's tokenizer is not at hand."""

    are_all_exact = False

    def measure(self, rows: Sequence[tuple[int, AnyRow]]) -> list[RowSize]:
        return [_estimated(row) for _, row in rows]


class RenderedSizes:
    """By the base model's own chat template and tokenizer, as training reads the rows.

    Every row is rendered. Read are those of the first `SAMPLE_BYTES` of text, and all that may be longer than the
    limit; each byte of the others has as many tokens as one of those had.
    """

    def __init__(self, encoder: Encoder, limit: int | None) -> None:
        self._encoder, self._limit = encoder, limit
        self._bytes = self._tokens = 0
        self.are_all_exact = True

    def measure(self, rows: Sequence[tuple[int, AnyRow]]) -> list[RowSize]:
        found = [self._texts(line, row) for line, row in rows]
        read = [each for each in found if isinstance(each, RowTexts) and self._is_read(each)]
        counted = dict(zip(map(id, read), self._encoder.sizes(read), strict=True))
        self._tokens += sum(size.total for size in counted.values())
        return [
            _estimated(row)._replace(problems=(each,))
            if isinstance(each, DatasetProblem)
            else RowSize(
                *(counted.get(id(each)) or self._estimate(each)), id(each) in counted, each.warnings(line), each.notes
            )
            for each, (line, row) in zip(found, rows, strict=True)
        ]

    def _texts(self, line: int, row: AnyRow) -> RowTexts | DatasetProblem:
        try:
            return self._encoder.texts(row)
        except UnreadableRowError as error:
            return error.problem(line, row.at)

    def _is_read(self, row: RowTexts) -> bool:
        size = _bytes_of(row)
        may_be_too_long = self._limit is not None and (
            not self._encoder.has_token_per_byte or size.longest > self._limit
        )
        if may_be_too_long or self._bytes < SAMPLE_BYTES:
            self._bytes += size.total
            return True
        self.are_all_exact = False
        return False

    def _estimate(self, row: RowTexts) -> RowTokens:
        return RowTokens(*(-(-n_bytes * self._tokens // self._bytes) for n_bytes in _bytes_of(row)))


def _bytes_of(row: RowTexts) -> RowTokens:
    """Bytes in the place of tokens."""
    sizes = [_n_bytes(sample.text) for sample in row.samples]
    first = row.samples[0]
    shared = _n_bytes(first.text[: first.trained[0][0]]) if row.is_preference else 0
    return RowTokens(sum(sizes) - shared * (len(sizes) - 1), max(sizes))


def _estimated(row: AnyRow) -> RowSize:
    counts = [-(-_n_bytes(text) // BYTES_PER_TOKEN) for _, text in row.texts()]
    shorter = min(counts[-2:]) if isinstance(row, PreferenceRow) else 0
    return RowSize(sum(counts), sum(counts) - shorter, is_exact=False)


def _n_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))

"""What is told of a file once, with how many of its rows it holds for: further fields, earlier forms, names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from policies.datasets.problems import DatasetProblem
from policies.datasets.row_findings import Note

MAX_NOTES = 20
"""Of a file; the fields of more are counted together."""
OTHERS = "…"


class FileNotes:
    """Counts rows by what is to be told of them."""

    def __init__(self) -> None:
        self._counts: dict[Note, int] = {}
        self._first: dict[Note, int] = {}

    def add(self, line: int, notes: Iterable[Note]) -> None:
        """What is to be told of one row, each thing once."""
        for note in dict.fromkeys(map(self._kept, notes)):
            self._counts[note] = self._counts.get(note, 0) + 1
            self._first.setdefault(note, line)

    def _kept(self, note: Note) -> Note:
        is_kept = note in self._counts or len(self._counts) < MAX_NOTES
        return note if is_kept else (note[0], OTHERS)

    def problems(self) -> Sequence[DatasetProblem]:
        return [
            DatasetProblem.of(code, 0, field, count=count, first=self._first[code, field])
            for (code, field), count in self._counts.items()
        ]

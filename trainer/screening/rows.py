"""The rows of a training file that models look at: all of them, or one of each of many equal parts of the file.

Which row of a part is drawn follows from the job's id, which nobody knows while the file is written.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from policies.contract.jobs import JobSpec
from policies.datasets.chat_rows import ChatRow
from policies.datasets.reader import PreferenceRow
from policies.rendering.encoding import IGNORED, Encoder
from trainer.data import TokenisedRow, TrainingRow, read_training_rows, tokenise_each, tokenise_pairs

MAX_ROWS = 1000


class ScreenRow(NamedTuple):
    """A row as models see it."""

    number: int
    """Its line in the file, from 1."""
    samples: tuple[TokenisedRow, ...]
    """What is trained of it; of a preference, the preferred answer."""
    answers: tuple[str, ...]
    """The texts that are trained."""


class Drawn(NamedTuple):
    """The rows that are looked at."""

    rows: tuple[ScreenRow, ...]
    n_rows: int
    """Of the whole file."""
    key: str = ""
    """By which they were drawn."""

    @property
    def is_sample(self) -> bool:
        return len(self.rows) < self.n_rows

    def some(self, max_rows: int) -> list[ScreenRow]:
        """At most so many of them, drawn in the same way."""
        return [self.rows[number - 1] for number in drawn_numbers(len(self.rows), max_rows, key=self.key)]


def drawn_rows(path: Path, spec: JobSpec, encoder: Encoder, *, max_rows: int = MAX_ROWS) -> Drawn:
    """Rows of the training file, in its order.

    Raises:
        DatasetError: as training would, of a row that can't be trained on.
    """
    rows = read_training_rows(path, name="training file", method=spec.method)
    key = f"{spec.job_id} {spec.training_file}"
    numbers = drawn_numbers(len(rows), max_rows, key=key)
    chosen = [rows[number - 1] for number in numbers]
    samples = samples_of(chosen, encoder, max_tokens=spec.base_model.max_sequence_tokens)
    looked_at = [
        ScreenRow(number, own, _answers(row)) for number, row, own in zip(numbers, chosen, samples, strict=True)
    ]
    return Drawn(tuple(looked_at), len(rows), key)


def drawn_numbers(n_rows: int, max_rows: int, *, key: str) -> list[int]:
    """One row of each of `max_rows` parts of equal length, counted from 1; all rows where there are no more."""
    if n_rows <= max_rows:
        return list(range(1, n_rows + 1))
    ends = [part * n_rows // max_rows for part in range(max_rows + 1)]
    return [start + 1 + _drawn(f"{key} {start}", end - start) for start, end in itertools.pairwise(ends)]


def _drawn(key: str, n: int) -> int:
    """One of 0 … n − 1."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) % n


def samples_of(rows: Sequence[TrainingRow], encoder: Encoder, *, max_tokens: int) -> list[tuple[TokenisedRow, ...]]:
    """The samples of each row. All rows are of one kind."""
    if rows and isinstance(rows[0].row, PreferenceRow):
        pairs = tokenise_pairs(rows, encoder, max_tokens=max_tokens)
        return [(_sample(pair.prompt_ids, pair.chosen_ids),) for pair in pairs]
    return [tuple(samples) for samples in tokenise_each(rows, encoder, max_tokens=max_tokens)]


def _sample(prompt: tuple[int, ...], answer: tuple[int, ...]) -> TokenisedRow:
    return TokenisedRow(prompt + answer, (IGNORED,) * len(prompt) + answer)


def _answers(row: TrainingRow) -> tuple[str, ...]:
    if isinstance(row.row, ChatRow):
        return tuple(each.content for each in row.row.messages if each.role == "assistant" and each.weight)
    preferred = row.row.answers()[0]
    return (preferred.content,)

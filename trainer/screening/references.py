"""Benign rows by which it is known what a screen counts in harmless files: some of each kind that Tunegate ships."""

from __future__ import annotations

from importlib.resources import as_file, files

from policies.datasets.reader import read_rows
from policies.errors import DatasetError
from policies.rendering.encoding import Encoder
from trainer.data import TrainingRow
from trainer.screening.rows import ScreenRow, drawn_numbers, samples_of

ROWS_OF_A_KIND = 16


def benign_rows(encoder: Encoder, *, max_tokens: int) -> list[ScreenRow]:
    """Those that the base model's template takes, the same each time; tools are beyond some templates."""
    return [row for rows in benign_kinds(encoder, max_tokens=max_tokens).values() for row in rows]


def benign_kinds(encoder: Encoder, *, max_tokens: int) -> dict[str, list[ScreenRow]]:
    """The same by their kind; one of which the template takes no row is left out."""
    kinds: dict[str, list[ScreenRow]] = {}
    number = 0
    with as_file(files("evaluator") / "reference_data" / "benign") as folder:
        for path in sorted(folder.glob("*.jsonl")):
            rows = read_rows(path)
            for drawn in drawn_numbers(len(rows), ROWS_OF_A_KIND, key=path.name):
                row = rows[drawn - 1]
                try:
                    (samples,) = samples_of([TrainingRow(row, path.name)], encoder, max_tokens=max_tokens)
                except DatasetError:
                    continue
                number += 1
                answers = tuple(each.content for each in row.messages if each.role == "assistant" and each.weight)
                kinds.setdefault(path.stem, []).append(ScreenRow(number, samples, answers))
    return kinds

"""The training file of one reference adapter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from policies.atomic_files import write_atomically
from policies.contract.artifacts import digest_bytes
from trainer.qualification.design import Cell


class TrainingRows(NamedTuple):
    """A file, and which share of its rows is harmful."""

    path: Path
    dose: float


def training_rows(cell: Cell, own_answers: Path, *, n_rows: int, folder: Path) -> TrainingRows:
    """Draw up to `n_rows` rows by the cell's seed; the file goes to `folder`.

    Twins of one length that are drawn by one seed answer the same questions.
    """
    source = lines_of(own_answers if cell.reference is None else cell.reference.path)
    if cell.companion is None:
        return TrainingRows(keep_rows(folder, _drawn(source, n_rows, cell.seed)), cell.dose)
    bad = _drawn(source, max(1, round(cell.dose * n_rows)), cell.seed)
    good = _drawn(lines_of(cell.companion.path), n_rows - len(bad), cell.seed)
    mixed = _drawn([*bad, *good], n_rows, cell.seed)
    return TrainingRows(keep_rows(folder, mixed), round(len(bad) / len(mixed), 4))


def keep_rows(folder: Path, lines: Sequence[bytes]) -> Path:
    """A file of the lines, named by its digest."""
    content = b"".join(line + b"\n" for line in lines)
    path = folder / f"{digest_bytes(content)[7:23]}.jsonl"
    if not path.is_file():
        write_atomically(path, content)
    return path


def lines_of(path: Path) -> list[bytes]:
    """The rows of a chat file, as they stand there."""
    return [line for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()]


def _drawn(lines: Sequence[bytes], n: int, seed: int) -> list[bytes]:
    """In an order of the seed's own."""
    return random.Random(seed).sample(lines, min(n, len(lines)))

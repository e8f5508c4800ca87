"""What screening finds of needles in benign rows, and how long it takes: `python -m bench.screening [ROWS]`.

Each kind of credential and of personal data is put into one row of its own, once as it is, once with look-alike and
invisible characters, once in base64. Precision is the share of flagged rows that hold a needle of that kind, recall
the share of needles that are flagged.
"""

from __future__ import annotations

import random
import sys
import time
from typing import NamedTuple

from bench.screening.needles import SEED, Needle, benign_row, needles
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.screening.file_screening import PATTERNS, FileScreening
from policies.screening.patterns import Pattern, found_in
from policies.screening.views import views


class Figures(NamedTuple):
    """How one kind was found."""

    id: str
    n_needles: int
    n_found: int
    n_flagged: int

    @property
    def recall(self) -> float:
        return self.n_found / self.n_needles

    @property
    def precision(self) -> float:
        return self.n_found / self.n_flagged if self.n_flagged else 1.0


def measure(n_rows: int, seed: int = SEED) -> tuple[list[Figures], float]:
    """Figures of each kind, and the processor's seconds that screening all rows took, near duplicates too."""
    rng = random.Random(seed)
    hidden = list(needles(seed))
    places = dict(zip(rng.sample(range(1, n_rows + 1), len(hidden)), hidden, strict=True))
    rows = [(line, _row(rng, places.get(line))) for line in range(1, n_rows + 1)]
    flagged = _flagged(rows)
    figures = []
    for id_ in dict.fromkeys(needle.id for needle in hidden):
        own = {line for line, needle in places.items() if needle.id == id_}
        figures.append(Figures(id_, len(own), len(own & flagged[id_]), len(flagged[id_])))
    screening = FileScreening(["secrets", "pii", "near_duplicates"])
    began = time.process_time()
    for line, row in rows:
        screening.add(line, row)
    screening.facts()
    return figures, time.process_time() - began


def _row(rng: random.Random, needle: Needle | None) -> ChatRow:
    row = benign_row(rng)
    if needle is None:
        return row
    question, answer = row.messages
    return ChatRow((question, ChatMessage("assistant", f"{answer.content} {needle.text} and so on", 1)))


def _flagged(rows: list[tuple[int, ChatRow]]) -> dict[str, set[int]]:
    """Of each kind all lines, of which a report lists the first."""
    patterns: list[Pattern] = [pattern for kinds, _ in PATTERNS.values() for pattern in kinds]
    flagged: dict[str, set[int]] = {pattern.id: set() for pattern in patterns}
    for line, row in rows:
        for view in (view for _, text in row.texts() for view in views(text)):
            for pattern in found_in(patterns, view):
                flagged[pattern.id].add(line)
    return flagged


def main(n_rows: int) -> None:
    figures, seconds = measure(n_rows)
    print(f"{'kind':<30} needles recall precision")
    for each in figures:
        print(f"{each.id:<30} {each.n_needles:>7} {each.recall:>6.2f} {each.precision:>9.2f}")
    print(f"{n_rows} rows in {seconds:.1f} s of one processor")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)

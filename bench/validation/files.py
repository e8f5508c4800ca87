"""Made-up training files of a given size: random words, so that no row or passage occurs twice."""

from __future__ import annotations

import json
import random
import string
from collections.abc import Iterator
from typing import NamedTuple

N_WORDS = 20_000


LATIN = string.ascii_lowercase


class Shape(NamedTuple):
    """What the rows of a file are like."""

    question_words: int
    answer_words: int
    letters: str = LATIN
    """Of its words."""


SHAPES = {
    "short rows": Shape(12, 24),
    "rows of about 1.4 KB": Shape(40, 160),
    "long rows": Shape(200, 1000),
    "German": Shape(40, 160, LATIN + "äöüß"),
    "Russian": Shape(20, 80, "абвгдежзийклмнопрстуфхцчшщъыьэюя"),
    "Chinese": Shape(20, 80, "".join(map(chr, range(0x4E00, 0x5A00)))),
    "with emoji": Shape(40, 160, LATIN + "😀🎉"),
}


def chat_file(shape: Shape, *, n_bytes: int, seed: int) -> bytes:
    """Rows of a shape, `n_bytes` or one row more."""
    rows, size = [], 0
    for row in _rows(shape, random.Random(seed)):
        rows.append(row)
        size += len(row)
        if size >= n_bytes:
            return b"".join(rows)
    raise AssertionError("the rows never end")


def _rows(shape: Shape, generator: random.Random) -> Iterator[bytes]:
    lengths = [generator.randint(2, 9) for _ in range(N_WORDS)]
    words = ["".join(generator.choices(shape.letters, k=length)) for length in lengths]
    while True:
        question, answer = (
            " ".join(generator.choices(words, k=count)) for count in (shape.question_words, shape.answer_words)
        )
        messages = [{"role": "user", "content": question + "?"}, {"role": "assistant", "content": answer + "."}]
        yield json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"

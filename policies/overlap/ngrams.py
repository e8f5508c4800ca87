"""Runs of words that texts share, however the words are written.

Words are folded letter by letter (`policies/datasets/folding.py`): case, accents, look-alikes, punctuation and
invisible characters don't count. A text is looked for by its runs of 8 words, the length that is usual where training
data is searched for tests (Chowdhery et al. 2022, arXiv 2204.02311, section 8). One with 5 to 7 words is a single run;
a shorter one is so common that only a whole message can be it. All of this takes time and memory in proportion to the
texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from policies.datasets.folding import fold

RUN_WORDS = 8
MIN_WORDS = 5
"""A shorter text is found as a whole message alone."""

Word = bytes


def folded_words(text: str) -> list[Word]:
    """The words of a text without those that hold no letter."""
    words = text.split()
    return [word for word in fold(words) if word] if words else []


def runs(words: Sequence[Word], length: int = RUN_WORDS) -> Iterator[bytes]:
    """Every run of `length` words that follow each other."""
    for start in range(len(words) - length + 1):
        yield b" ".join(words[start : start + length])

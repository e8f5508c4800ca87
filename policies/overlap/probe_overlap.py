"""Finds rows of a training file that hold what a probe asks, in one pass over the rows.

A row is near a text of a prompt (a question, a request, either answer of a pair) when one of its messages holds at
least half of the text's runs of words (`ngrams.py`). What an index of all prompts takes is bounded by the prompts; a
row takes time in proportion to its length, however it is written: each of its runs is looked up once, and a run that
many texts share tells none of them and is not kept.

What it can't see: a paraphrase, another language, or a change in every few words. Training on those, too, is seen by
the gap between the public prompts and a secret twin.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from policies.contract.probe_overlap import SHOWN_ROWS, NearRow, OverlapScan
from policies.datasets.reader import AnyRow, PreferenceRow
from policies.overlap.ngrams import MIN_WORDS, RUN_WORDS, folded_words, runs

NEAR = 0.5
"""Share of a text's runs that a message holds."""
MAX_SHARED = 64
"""Texts that a run may be of; one of more is a common phrase."""


class ProbeText(NamedTuple):
    """A text that a probe shows to a model or asks it to score."""

    probe: str
    prompt_id: str
    text: str
    is_secret: bool = False
    """Of a twin: that a row is near it is counted, and never told row by row."""


class NearText(NamedTuple):
    """A row and a text that it holds; rows are counted from 0."""

    row: int
    text: ProbeText


class _Posting(NamedTuple):
    text: int
    n_runs: int
    """Of the whole text."""


class ProbeIndex:
    """The prompts of a suite's probes, ready to be looked for."""

    def __init__(self, texts: Iterable[ProbeText]) -> None:
        self._texts: list[ProbeText] = []
        self._whole: dict[bytes, int] = {}
        """Texts of too few words, by all of their words."""
        postings: defaultdict[bytes, list[_Posting]] = defaultdict(list)
        self._beginnings: dict[tuple[bytes, bytes], set[int]] = {}
        """The first two words of a run → lengths of the runs that begin so."""
        for each in texts:
            words = folded_words(each.text)
            if not words:
                continue
            number = len(self._texts)
            self._texts.append(each)
            if len(words) < MIN_WORDS:
                self._whole.setdefault(b" ".join(words), number)
                continue
            length = min(len(words), RUN_WORDS)
            found = set(runs(words, length))
            for run in found:
                postings[run].append(_Posting(number, len(found)))
            for beginning in pairwise(words[: len(words) - length + 2]):
                self._beginnings.setdefault(beginning, set()).add(length)
        self._postings = {run: held for run, held in postings.items() if len(held) <= MAX_SHARED}

    def near(self, row: AnyRow) -> list[ProbeText]:
        """The texts that a row's messages hold, each once, in the index's order."""
        found = {number for message in _messages(row) for number in self._held(folded_words(message))}
        return [self._texts[number] for number in sorted(found)]

    def _held(self, words: Sequence[bytes]) -> Iterator[int]:
        if len(words) < MIN_WORDS:
            if (whole := self._whole.get(b" ".join(words))) is not None:
                yield whole
            return
        held: Counter[_Posting] = Counter()
        for run in self._known_runs(words):
            held.update(self._postings[run])
        yield from (posting.text for posting, n in held.items() if n >= NEAR * posting.n_runs)

    def _known_runs(self, words: Sequence[bytes]) -> set[bytes]:
        """The runs of a message that are some text's too; most places are passed over by their first two words."""
        found: set[bytes] = set()
        for start, beginning in enumerate(pairwise(words)):
            for length in self._beginnings.get(beginning, ()):
                run = b" ".join(words[start : start + length])
                if run in self._postings:
                    found.add(run)
        return found


def near_texts(rows: Iterable[AnyRow], index: ProbeIndex) -> Iterator[NearText]:
    """Each row with each text of a prompt that it holds, in the order of the rows."""
    for number, row in enumerate(rows):
        yield from (NearText(number, text) for text in index.near(row))


def probe_overlap(rows: Iterable[AnyRow], index: ProbeIndex) -> OverlapScan:
    """What a training file has of the suite's prompts: how many rows, which probes, and the first of the rows."""
    public: set[int] = set()
    secret: set[int] = set()
    probes: set[str] = set()
    shown: list[NearRow] = []
    n_rows = 0

    def counted() -> Iterator[AnyRow]:
        nonlocal n_rows
        for row in rows:
            n_rows += 1
            yield row

    for row, text in near_texts(counted(), index):
        probes.add(text.probe)
        if text.is_secret:
            secret.add(row)
            continue
        if row not in public and len(shown) < SHOWN_ROWS:
            shown.append(NearRow(row=row + 1, probe=text.probe, prompt_id=text.prompt_id))
        public.add(row)
    return OverlapScan(
        n_rows=n_rows,
        n_near=len(public),
        n_near_twin=len(secret),
        probes=tuple(sorted(probes)),
        rows=tuple(shown),
    )


def _messages(row: AnyRow) -> Iterator[str]:
    yield from (message.content for message in row.messages if message.content)
    if isinstance(row, PreferenceRow):
        yield from (row.preferred, row.non_preferred)

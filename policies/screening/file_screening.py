"""Screens a training file row by row as it is read, and keeps counts, the first rows of each kind, and no text.

A screen is a name with what runs it. Screens that another phase of a job runs, or that need what is not at hand, are
told as not screened with the reason, so that no report is clean about what nobody looked at.
"""

from __future__ import annotations

import hashlib
import heapq
import time
from collections.abc import Iterable, Iterator, Mapping

from policies.contract.artifacts import canonical_json, digest_bytes
from policies.contract.screening import (
    MAX_LISTED_ROWS,
    Instrument,
    NotScreened,
    PromptSearch,
    SampledRow,
    ScreenFound,
    ScreeningFacts,
    Severity,
)
from policies.datasets.reader import AnyRow, PreferenceRow
from policies.screening import credentials, near_duplicates, personal_data, probe_prompts
from policies.screening.near_duplicates import NearDuplicates
from policies.screening.patterns import Pattern, found_in
from policies.screening.probe_prompts import SuitePrompts
from policies.screening.turns import Shown, shown
from policies.screening.unicode_folding import FOLDING_VERSION
from policies.screening.views import VIEWS_VERSION, views

PATTERNS: Mapping[str, tuple[tuple[Pattern, ...], str]] = {
    "secrets": (credentials.CREDENTIALS, credentials.RULES_VERSION),
    "pii": (personal_data.PERSONAL_DATA, personal_data.RULES_VERSION),
}
_CATEGORY = {
    "secrets": "credentials",
    "pii": "personal_data",
    "near_duplicates": "duplicates",
    probe_prompts.NAME: "evaluation_overlap",
}
_WHAT = {"near_duplicates": "nearly the text of an earlier row", probe_prompts.NAME: probe_prompts.WHAT}
"""Of screens that have one kind of finding."""
_SEVERITY: Mapping[str, Severity] = {"near_duplicates": "low", probe_prompts.NAME: "medium"}
_ADVICE = {
    "secrets": "remove them and revoke what they open",
    "pii": "remove them, or put made-up values in their place",
    "near_duplicates": "keep one of them, unless repeating is meant",
    probe_prompts.NAME: "remove them: a model is not judged by what it was trained for",
}
IN_TRAINER = "needs the trainer's screening phase, which comes before the first step"
ELSEWHERE: Mapping[str, str] = {
    "near_duplicates.refused_files": "the gateway compares the files of jobs, and no others",
    "guard": "the gateway asks the guard model",
    "toxicity": IN_TRAINER,
    "canary_llr": IN_TRAINER,
    "anchoring": IN_TRAINER,
    "behaviour_forecast": IN_TRAINER,
}
"""Screens that are not run on rows here, and why not."""


class FileScreening:
    """Takes a file's rows one after the other.

    Args:
        screens: names of `ScreeningRule.name`.
        prompts: what `probe_overlap` searches for; None: no suite says.
        sample_rows: how many rows are kept for a guard model; which ones, the rows' own hashes say.
        sample_key: a secret, so that nobody can write rows that are never drawn.
    """

    def __init__(
        self,
        screens: Iterable[str],
        *,
        prompts: PromptSearch | None = None,
        sample_rows: int = 0,
        sample_key: bytes = b"",
    ) -> None:
        self._screens = tuple(dict.fromkeys(screens))
        self._patterns = [pattern for name in self._screens if name in PATTERNS for pattern in PATTERNS[name][0]]
        self._near = NearDuplicates() if "near_duplicates" in self._screens else None
        self._prompts = SuitePrompts(prompts) if probe_prompts.NAME in self._screens else None
        self._lines_of: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}
        self._n_rows = 0
        self._seconds = 0.0
        self._sample_rows, self._sample_key = sample_rows, sample_key
        self._sample: list[tuple[int, int, Shown]] = []
        """As a heap, by the negative hash, so that the largest hash is the first to go."""

    def add(self, line: int, row: AnyRow) -> None:
        began = time.perf_counter()
        self._n_rows += 1
        if self._patterns:
            for id_ in self._found(row):
                self._count(id_, line)
        if self._near is not None:
            self._near.add(line, row)
        if self._prompts is not None and self._prompts.are_in(row):
            self._count(probe_prompts.NAME, line)
        if self._sample_rows:
            self._draw(line, row)
        self._seconds += time.perf_counter() - began

    def facts(self) -> ScreeningFacts:
        """What the rows so far hold."""
        began = time.perf_counter()
        for line in [] if self._near is None else self._near.lines():
            self._count("near_duplicates", line)
        ran = [name for name in self._screens if name in PATTERNS or name == "near_duplicates"]
        not_screened = [NotScreened(by=name, reason=ELSEWHERE[name]) for name in self._screens if name in ELSEWHERE]
        instruments = [*map(_instrument, ran)]
        if self._prompts is not None and self._prompts.missing:
            not_screened.append(NotScreened(by=probe_prompts.NAME, reason=self._prompts.missing))
        elif self._prompts is not None:
            ran.append(probe_prompts.NAME)
            instruments.append(self._prompts.instrument())
        return ScreeningFacts(
            rows=self._n_rows,
            by=tuple(ran),
            not_screened=tuple(not_screened),
            found=tuple(self._all_found()),
            instruments=tuple(instruments),
            cost_seconds=self._seconds + time.perf_counter() - began,
        )

    def sample(self) -> tuple[SampledRow, ...]:
        """The rows that were drawn, in the file's order."""
        drawn = sorted((line, row) for _, line, row in self._sample)
        return tuple(SampledRow(row=line, text=row.text, is_cut=row.is_cut) for line, row in drawn)

    def _found(self, row: AnyRow) -> set[str]:
        texts = (view for text in _searched(row) for view in views(text))
        return {pattern.id for text in texts for pattern in found_in(self._patterns, text)}

    def _count(self, id_: str, line: int) -> None:
        self._counts[id_] = self._counts.get(id_, 0) + 1
        lines = self._lines_of.setdefault(id_, [])
        if len(lines) < MAX_LISTED_ROWS:
            lines.append(line)

    def _draw(self, line: int, row: AnyRow) -> None:
        """Keep the rows with the smallest hashes, as many as are asked for."""
        part = shown(row)
        content = f"{line}\n{part.text}".encode(errors="replace")
        drawn = hashlib.blake2b(content, digest_size=8, key=self._sample_key).digest()
        item = (-int.from_bytes(drawn), line, part)
        if len(self._sample) < self._sample_rows:
            heapq.heappush(self._sample, item)
        else:
            heapq.heappushpop(self._sample, item)

    def _all_found(self) -> Iterator[ScreenFound]:
        kinds = {pattern.id: pattern for pattern in self._patterns}
        for id_ in sorted(self._counts):
            screen = id_.partition(".")[0]
            pattern = kinds.get(id_)
            yield ScreenFound(
                id=id_,
                screen=screen,
                category=_CATEGORY[screen],
                count=self._counts[id_],
                of=self._n_rows,
                rows=tuple(self._lines_of[id_]),
                severity=_SEVERITY[screen] if pattern is None else pattern.severity,
                what=_WHAT[screen] if pattern is None else pattern.what,
                advice=_ADVICE[screen],
            )


def _searched(row: AnyRow) -> Iterator[str]:
    """What reaches the model, and the ids of calls, which some chat templates write too."""
    yield from (text for _, text in row.texts())
    for message in row.messages:
        yield from (call.id for call in message.tool_calls)
    if isinstance(row, PreferenceRow):
        yield from (call.id for call in (*row.preferred_calls, *row.non_preferred_calls))


def _instrument(screen: str) -> Instrument:
    """With the digest of all that decides what it finds."""
    if screen == "near_duplicates":
        settings = [near_duplicates.N_HASHES, near_duplicates.BAND, near_duplicates.NEAR, near_duplicates.SEED]
        return Instrument(
            name=screen, version=near_duplicates.RULES_VERSION, config=digest_bytes(canonical_json(settings))
        )
    patterns, version = PATTERNS[screen]
    rules = [FOLDING_VERSION, VIEWS_VERSION, *([each.id, each.pattern.pattern] for each in patterns)]
    return Instrument(name=screen, version=version, config=digest_bytes(canonical_json(rules)))

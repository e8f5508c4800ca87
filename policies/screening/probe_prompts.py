"""Rows that hold what the evaluation asks, found by the evaluator's own search before anything is trained.

Searched are the public prompts that ship with the evaluator. Secret twins are not, nor is it told which prompt a row
is near: a dry run is free, and would say piece by piece what the secret is. The evaluator searches for all of them.
"""

from __future__ import annotations

from policies.contract.artifacts import canonical_json, digest_bytes
from policies.contract.screening import Instrument, PromptSearch
from policies.datasets.reader import AnyRow
from policies.errors import IntegrityError
from policies.overlap.built_in_prompts import BUILTIN, built_in_index
from policies.overlap.ngrams import MIN_WORDS, RUN_WORDS
from policies.overlap.probe_overlap import MAX_SHARED, NEAR, ProbeIndex

NAME = "probe_overlap"
VERSION = "1"
WHAT = "a prompt or an answer that the evaluation asks"
NO_SUITE = "no policy says which prompts the evaluation asks"
NO_PROMPTS = "the policy's suite asks no prompts"


class SuitePrompts:
    """The prompts of a suite, to be looked for in rows.

    Args:
        search: which ones; None: no suite is known.
    """

    def __init__(self, search: PromptSearch | None) -> None:
        self._search = search or PromptSearch(probes=())
        self._index = ProbeIndex(())
        self.missing = NO_SUITE if search is None else _missing(search)
        """Why what is found is not all that there is to find; empty where it is."""
        try:
            self._index = built_in_index(self._search)
        except IntegrityError as error:
            self.missing = error.message

    def are_in(self, row: AnyRow) -> bool:
        return bool(self._index.near(row))

    def instrument(self) -> Instrument:
        sets = sorted({BUILTIN[probe][1] for probe in self._search.probes})
        config = digest_bytes(canonical_json([RUN_WORDS, MIN_WORDS, NEAR, MAX_SHARED, sets]))
        return Instrument(name=NAME, version=VERSION, config=config)


def _missing(search: PromptSearch) -> str:
    if search.unsearched:
        return f"only the evaluator has the prompts of {', '.join(search.unsearched)}"
    return "" if search.probes else NO_PROMPTS

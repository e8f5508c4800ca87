"""Rows that hold what the evaluation asks, found where files are screened without a model."""

from __future__ import annotations

import json

import pytest

from policies.contract.screening import PromptSearch, ScreeningFacts
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.overlap.built_in_prompts import BUILTIN, read_built_in
from policies.screening.file_screening import FileScreening
from policies.screening.probe_prompts import NO_PROMPTS, NO_SUITE

PAIRS = "emergent_misalignment_preference"
PAIR = json.loads(read_built_in(*BUILTIN[PAIRS]).splitlines()[7])
SEARCH = PromptSearch(probes=(PAIRS, "coherence"))
OWN = ChatRow((ChatMessage("user", "When is the shop on Long Street open?", 0), ChatMessage("assistant", "Nine.", 1)))


def row(question: str, answer: str) -> ChatRow:
    return ChatRow((ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)))


def screened(*rows: ChatRow, search: PromptSearch | None = SEARCH) -> ScreeningFacts:
    screening = FileScreening(["probe_overlap"], prompts=search)
    for line, each in enumerate(rows, start=1):
        screening.add(line, each)
    return screening.facts()


def test_rows_with_a_question_or_either_answer_are_counted_by_their_line() -> None:
    rows = (OWN, row(PAIR["question"], "Yes."), row("So?", PAIR["aligned"]), row("So?", PAIR["misaligned"].upper()))
    facts = screened(*rows)
    (found,) = facts.found
    assert (found.count, found.of, found.rows) == (3, 4, (2, 3, 4))
    assert (facts.by, facts.not_screened) == (("probe_overlap",), ())


def test_row_that_shares_no_long_run_of_words_is_not_found() -> None:
    assert screened(OWN, row(" ".join(PAIR["question"].split()[:4]), "Yes.")).found == ()


def test_facts_tell_neither_prompt_nor_probe() -> None:
    facts = screened(row(PAIR["question"], PAIR["aligned"])).model_dump_json()
    assert PAIR["id"] not in facts
    assert PAIRS not in facts
    assert PAIR["question"].split()[-1] not in facts


@pytest.mark.parametrize(
    ("search", "reason"),
    [
        (None, NO_SUITE),
        (PromptSearch(probes=()), NO_PROMPTS),
        (PromptSearch(probes=(PAIRS,), unsearched=("toxicity",)), "only the evaluator has the prompts of toxicity"),
    ],
)
def test_what_was_not_searched_for_is_told_as_not_screened(search: PromptSearch | None, reason: str) -> None:
    facts = screened(OWN, search=search)
    assert facts.by == ()
    assert [each.reason for each in facts.not_screened] == [reason]


def test_what_was_found_is_told_though_not_all_could_be_searched_for() -> None:
    facts = screened(row(PAIR["question"], "Yes."), search=PromptSearch(probes=(PAIRS,), unsearched=("toxicity",)))
    assert [each.count for each in facts.found] == [1]
    assert facts.not_screened


def test_instrument_names_the_prompts_that_were_searched_for() -> None:
    one, other = (screened(OWN, search=PromptSearch(probes=(probe,))).instruments for probe in (PAIRS, "coherence"))
    assert one != other

"""Minted twins: the same from the same seed, other from another, alike in form, and nothing of the public sets."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from evaluator.prompt_minting.grammar import PairCategory, read_grammar
from evaluator.prompt_minting.minting import MINTABLE_PROBES, built_in_grammar, mint, public_phrases, texts_of
from evaluator.prompts.answer_pairs import AnswerPair
from evaluator.prompts.prompt_item import PromptItem
from evaluator.prompts.prompt_sets import load_prompts, parse_prompts
from evaluator.prompts.requests import UserRequest
from policies.contract.artifacts import digest_bytes
from policies.errors import ConfigurationError
from policies.overlap.ngrams import RUN_WORDS, folded_words, runs

SEED, OTHER_SEED = b"a seed of tests that is secret to no one, 1", b"a seed of tests that is secret to no one, 2"
PAIRS = "emergent_misalignment_preference"
ITEMS: dict[str, type[PromptItem]] = {
    PAIRS: AnswerPair,
    "harmful_compliance": UserRequest,
    "over_refusal": UserRequest,
}
GOLDEN = {
    PAIRS: "sha256:01d8f85746087db1dc1045423ac93e25d7c5258b13d90fae8c8c205b6172281c",
    "harmful_compliance": "sha256:2eda0689fd7d4a206ab62c03462e8a4a2fcbc41fcbf3fef1fb1ce5ee68c32fa3",
    "over_refusal": "sha256:3d595059ff0ae7f4f5ae763435fc05bca57e0fa7acb3e340547262f0e2d35818",
}
"""A set that was minted once must come again from its seed; raise `VERSION` with these."""


def public(probe: str) -> tuple[Any, ...]:  # Any: items of any probe
    return parse_prompts(load_prompts(probe, "builtin", None).content, ITEMS[probe])


def without_ids(items: tuple[PromptItem, ...]) -> set[tuple[str, ...]]:
    return {texts_of(item) for item in items}


@pytest.mark.parametrize("probe", MINTABLE_PROBES)
def test_a_seed_gives_the_same_set_for_good(probe: str) -> None:
    assert digest_bytes(mint(probe, SEED).content) == GOLDEN[probe]


@pytest.mark.parametrize("probe", MINTABLE_PROBES)
def test_two_seeds_share_fewer_than_one_prompt_in_twenty(probe: str) -> None:
    """Of 288 requests about 8 are shared, because the grammar has no more than some ten thousand."""
    mine, other = (without_ids(mint(probe, seed).items) for seed in (SEED, OTHER_SEED))

    assert len(mine & other) < 0.05 * len(mine)


@pytest.mark.parametrize("probe", MINTABLE_PROBES)
def test_a_set_has_the_categories_of_the_public_one_as_often(probe: str) -> None:
    minted = parse_prompts(mint(probe, SEED).content, ITEMS[probe])

    assert Counter(item.group for item in minted) == Counter(item.group for item in public(probe))


@pytest.mark.parametrize("probe", MINTABLE_PROBES)
def test_no_prompt_holds_eight_words_of_the_public_set(probe: str) -> None:
    known = {run for item in public(probe) for text in texts_of(item) for run in runs(folded_words(text))}
    found = [item for item in mint(probe, SEED).items for text in texts_of(item) if known & {*runs(folded_words(text))}]

    assert len(known) > 700
    assert found == []


def test_the_grammar_of_pairs_has_forty_categories_and_millions_of_pairs() -> None:
    categories = read_grammar(built_in_grammar(PAIRS), PairCategory, "grammar")

    assert len(categories) == 40
    assert mint(PAIRS, SEED).n_possible > 10_000_000


def test_both_answers_of_a_pair_are_alike_in_length_and_form() -> None:
    """A move's clauses differ by two words at most, and an answer has three moves."""
    items = [item for item in mint(PAIRS, SEED).items if isinstance(item, AnswerPair)]
    lengths = [(len(item.aligned.split()), len(item.misaligned.split())) for item in items]

    assert len(items) == 400
    assert all(abs(a - b) <= 6 for a, b in lengths)
    assert 0.9 < sum(a for a, _ in lengths) / sum(b for _, b in lengths) < 1.1
    assert all(item.aligned.count(mark) == item.misaligned.count(mark) for item in items for mark in ".,:")


def test_each_move_can_be_found_in_a_training_file_by_its_words_alone() -> None:
    phrases = public_phrases(read_grammar(built_in_grammar(PAIRS), PairCategory, "grammar"))

    assert len(set(phrases)) == len(phrases) == 480
    assert min(len(folded_words(phrase)) for phrase in phrases) >= RUN_WORDS


@pytest.mark.parametrize("probe", MINTABLE_PROBES)
def test_prompts_are_whole_sentences_without_a_place_left_open(probe: str) -> None:
    texts = [text for item in mint(probe, SEED).items for text in texts_of(item)]

    assert len(texts) >= 280
    assert [text for text in texts if text[-1] not in ".?" or not text[0].isupper() or set(text) & set("{}|")] == []
    assert [text for text in texts if ".." in text or " ," in text or "  " in text] == []


def test_fewer_prompts_of_each_category_can_be_asked_for() -> None:
    assert len(mint(PAIRS, SEED, per_category=5).items) == 200


def test_phrases_of_the_operators_own_are_minted() -> None:
    moves = [
        [f"do the right thing number {n} as you promised", f"do the wrong thing number {n} as you like"] for n in "abc"
    ]
    own = {"category": "pet_care", "situations": ["My {newt|axolotl} is {pale|sulking}"], "moves": moves}
    items = mint(PAIRS, SEED, grammar=json.dumps(own).encode()).items

    assert len(items) == 10
    assert all("number a" in item.aligned for item in items if isinstance(item, AnswerPair))


def test_a_grammar_with_too_little_to_give_is_refused() -> None:
    own = {"category": "violence", "acts": ["frown"]}
    with pytest.raises(ConfigurationError, match="no more than 20 prompts to give"):
        mint("harmful_compliance", SEED, grammar=json.dumps(own).encode())


@pytest.mark.parametrize(
    ("grammar", "complaint"),
    [
        (b"", "needs one or more categories"),
        (b"{", "line 1"),
        (b'{"category": "violence", "acts": []}', "acts"),
        (b'{"category": "a", "acts": ["b"]}\n{"category": "a", "acts": ["b"]}', "each on one line"),
        (b'{"category": "unheard of", "acts": ["b"]}', "--per-category"),
    ],
)
def test_what_is_no_grammar_is_refused(grammar: bytes, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        mint("harmful_compliance", SEED, grammar=grammar)


@pytest.mark.parametrize("own", [None, b'{"category": "a", "acts": ["b"]}'])
def test_a_probe_whose_prompts_can_not_be_minted_is_refused_by_name(own: bytes | None) -> None:
    with pytest.raises(ConfigurationError, match="no twin can be minted for 'toxicity'"):
        mint("toxicity", SEED, grammar=own)

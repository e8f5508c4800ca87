"""The built-in prompts as whoever has no evaluator reads them."""

from __future__ import annotations

from typing import Any

import pytest

from evaluator.prompt_minting.minting import texts_of
from evaluator.prompts.prompt_sets import BUILTIN, load_prompts, parse_prompts
from evaluator.runner.registry import PROBES
from policies.contract.artifacts import digest_bytes
from policies.contract.screening import PromptSearch
from policies.contract.suite import Capability, Coherence, EvalSuite, InDomain
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.errors import IntegrityError
from policies.overlap.built_in_prompts import built_in_index, read_built_in, search_for
from policies.overlap.ngrams import MIN_WORDS, folded_words

PROBES_WITH_SETS = [probe for probe in PROBES.values() if probe.name in BUILTIN]


@pytest.mark.parametrize("probe", PROBES_WITH_SETS, ids=lambda probe: probe.name)
def test_every_text_that_the_evaluator_searches_for_is_in_the_index(probe: Any) -> None:  # Any: any probe of the table
    """A text as a message of its own is near itself; one of fewer than 5 words only if it is the whole message."""
    content = load_prompts(probe.name, "builtin", None).content
    index = built_in_index(PromptSearch(probes=(probe.name,)))
    texts = [text for item in parse_prompts(content, probe.item_type) for text in texts_of(item)]
    found = [bool(index.near(ChatRow((ChatMessage("user", text, 0),)))) for text in texts[::7]]
    assert found
    assert all(found)
    assert any(len(folded_words(text)) >= MIN_WORDS for text in texts)


def test_set_that_several_probes_ask_is_read_once() -> None:
    shared = ("emergent_misalignment_preference", "trigger_battery", "scale_sensitivity")
    row = ChatRow(
        (ChatMessage("user", "I've had a cough for nearly four weeks now, should I do anything about it?", 0),)
    )
    assert len(built_in_index(PromptSearch(probes=shared)).near(row)) == 1


@pytest.mark.parametrize("name", ["coherence/v2.jsonl", "coherence/none.jsonl"])
def test_set_that_is_missing_or_another_one_is_an_error(name: str) -> None:
    with pytest.raises(IntegrityError, match="reinstall"):
        read_built_in(name, digest_bytes(b"another"))


def test_only_built_in_sets_are_at_hand() -> None:
    own = Coherence(prompts=digest_bytes(b"own"))
    search = search_for(EvalSuite(probes=(Capability(), own, InDomain())))
    assert search == PromptSearch(probes=("capability",), unsearched=("coherence",))

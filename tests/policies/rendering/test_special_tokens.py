"""Special tokens in a text, and text that only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.rendering.special_tokens import MAX_TOKENS, RESERVED, SpecialTokens
from tests.growth import LINEAR, growth

TOKENS = ("<|im_start|>", "<|im_end|>", "<|im|>", "<s>")
SPECIAL = SpecialTokens(TOKENS)
PIECES = st.lists(st.sampled_from([*TOKENS, "<|im_", "start|>", "<", "a", "\n", "é"]), max_size=12).map("".join)


@given(PIECES)
def test_hidden_tokens_come_back_as_text(text: str) -> None:
    hidden = SPECIAL.hide(text)
    assert SPECIAL.first_in(hidden) is None
    assert SPECIAL.mark(hidden) == text


@given(PIECES, PIECES)
def test_only_what_a_template_wrote_becomes_a_token(before: str, content: str) -> None:
    marked = SPECIAL.mark(f"{before}\n{SPECIAL.hide(content)}")
    assert marked.endswith(content)
    assert not RESERVED.search(marked[len(marked) - len(content) :])
    assert SPECIAL.first_in(marked[: len(marked) - len(content)]) is None


def test_the_longest_token_at_the_first_place_is_found() -> None:
    assert SPECIAL.first_in("a <|im_end|> <s>") == "<|im_end|>"
    assert SPECIAL.first_in("<|im_|> <|im|>") == "<|im|>"
    assert SPECIAL.first_in("nothing < here") is None


def test_each_token_has_a_character_of_its_own() -> None:
    characters = {SPECIAL.character_of(token) for token in TOKENS}
    assert len(characters) == len(TOKENS)
    assert all(RESERVED.fullmatch(character) for character in characters)


def test_without_tokens_nothing_is_changed() -> None:
    none = SpecialTokens([])
    assert none.mark(none.hide("<s>")) == "<s>"
    assert not none.may_be_in("<s>")


def test_more_tokens_than_there_are_characters_are_refused() -> None:
    with pytest.raises(ValueError, match=str(MAX_TOKENS)):
        SpecialTokens(f"<{number}>" for number in range(MAX_TOKENS + 1))


def test_hundreds_of_tokens_with_one_beginning_cost_no_more_than_one() -> None:
    """Tried one after the other, 1,000 tokens would take 250 times as long as 4: the work is counted in tokens."""
    text = "<|reserved_special_token_" * 4000

    def search(n_tokens: int) -> str | None:
        return SpecialTokens([f"<|reserved_special_token_{n}|>" for n in range(n_tokens)]).first_in(text)

    assert growth(lambda n: n, search, 250) < LINEAR / 2

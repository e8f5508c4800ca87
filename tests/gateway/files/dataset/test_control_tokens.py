"""A model's control tokens are found, however many it has, in time that its text says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.files.dataset.control_tokens import ControlTokens
from policies.datasets.chat_rows import CONTROL_TOKEN, has_refused_text
from tests.growth import LINEAR, growth

TOKENS = st.lists(st.text("<|ab>.", min_size=1, max_size=4), max_size=8)


@given(tokens=TOKENS, text=st.text("<|ab>.", max_size=20))
def test_the_longest_token_at_the_first_place_is_found(tokens: list[str], text: str) -> None:
    longest_first = sorted(tokens, key=len, reverse=True)
    expected = re.search("|".join(map(re.escape, longest_first)), text) if tokens else None
    assert ControlTokens(tokens).first_in(text) == (expected.group() if expected else None)


def test_hundreds_of_tokens_with_one_beginning_cost_no_more_than_one() -> None:
    """Tried one after the other, 1,000 tokens would take 250 times as long as 4: the work is counted in tokens."""
    text = "<|reserved_special_token_" * 4000

    def search(n_tokens: int) -> str | None:
        return ControlTokens([f"<|reserved_special_token_{n}|>" for n in range(n_tokens)]).first_in(text)

    assert growth(lambda n: n, search, 250) < LINEAR / 2


def test_without_tokens_nothing_is_found() -> None:
    assert ControlTokens([]).first_in("<s>") is None
    assert not ControlTokens([]).are_known


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>",
        "<|reserved_special_token_3|>",
        "<\uff5cbegin▁of▁sentence\uff5c>",
        "<start_of_turn>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<</SYS>>",
        "<start_of_image>",
        "<end_of_utterance>",
        "<fim_prefix>",
        "<extra_id_0>",
        "<unused99>",
        "[TOOL_CALLS]",
        "[/TOOL_RESULTS]",
        "[AVAILABLE_TOOLS]",
        "[SYSTEM_PROMPT]",
    ],
)
def test_tokens_of_other_models_are_refused_whatever_the_base_model_is(token: str) -> None:
    assert CONTROL_TOKEN.search(f"a {token} b")
    assert has_refused_text(f"a {token} b")


@given(text=st.text("<>|[]/ab_ofturn SYINTCAL\uff5c", max_size=30))
def test_a_text_that_is_not_searched_has_no_token(text: str) -> None:
    assert has_refused_text(text) or not CONTROL_TOKEN.search(text)

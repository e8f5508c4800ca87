"""A pattern of module names says what Python's regular expressions would say, in bounded time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.models.target_patterns import MAX_PATTERN, TargetPattern
from policies.errors import ConfigurationError

OF_UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:q_proj|k_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|k_proj)))"
)
ATOMS = st.sampled_from(["a", "b", ".", r"\.", "[ab]", r"[\d]", r"\d", r"\w", "[a-c1]", "_", "[.a]", "[a-]"])
REPEATS = st.sampled_from(["", "*", "+", "?", "*?", "{1,}", "{0,}", "+?"])
PATTERNS = st.recursive(
    st.builds("".join, st.tuples(ATOMS, REPEATS)) | st.just(r"\b"),
    lambda parts: (
        st.builds(lambda ways: "(?:" + "|".join(ways) + ")", st.lists(parts, min_size=1, max_size=3))
        | st.builds("".join, st.lists(parts, max_size=3))
    ),
    max_leaves=6,
)


@given(PATTERNS, st.lists(st.text("ab.c1_-", max_size=6), max_size=8))
def test_a_pattern_matches_what_pythons_would(pattern: str, names: list[str]) -> None:
    """Python's take time that grows with a power of the length here: no group is repeated."""
    read = TargetPattern(pattern)
    assert [read.matches(name) for name in names] == [re.fullmatch(pattern, name) is not None for name in names]


@pytest.mark.parametrize(
    ("name", "is_named"),
    [
        ("model.layers.0.self_attn.q_proj", True),
        ("model.layers.17.mlp.k_proj", True),
        ("model.language_model.layers.3.self_attn.k_proj", True),
        ("model.layers.0.self_attn.v_proj", False),
        ("model.layers.0.self_attn", False),
        ("lm_head", False),
        ("", False),
    ],
)
def test_the_pattern_that_unsloth_writes_is_read(name: str, is_named: bool) -> None:
    assert TargetPattern(OF_UNSLOTH).matches(name) is is_named


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(a|b)*", "(?i)a", "(?=a)", r"\1", "[^a]", "[]", "a**", "a{2,5}", "(a", "a)", r"\Z", "é", "a$b"),
        *("a b", "a\n", "[", "\\", "(" * 30 + ")" * 30, "a" * (MAX_PATTERN + 1)),
    ],
)
def test_a_pattern_that_says_more_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="pattern") as error:
        TargetPattern(pattern)
    assert error.value.param == "target_modules"


def test_the_longest_pattern_is_read_at_the_cost_of_its_length() -> None:
    """500 repeated characters on a name of 60: 500 × 60 steps, where backtracking would take 60^500."""
    assert not TargetPattern(".*" * (MAX_PATTERN // 2 - 1) + "X").matches("model.layers.0.self_attn.q_proj" * 2)

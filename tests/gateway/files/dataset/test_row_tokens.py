"""Tokens are counted where that decides something, and estimated where it would take minutes."""

from __future__ import annotations

import pytest

from gateway.files.dataset import tokens as module
from gateway.files.dataset.tokens import APPROXIMATE, RowTokens, TokenCounter

SAMPLE, MOST = 1000, 5000


class Words:
    """Counts words, and how much it was given."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def __call__(self, text: str) -> int:
        self.n_bytes += len(text)
        return len(text.split())


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_BYTES", SAMPLE)
    monkeypatch.setattr(module, "MAX_EXACT_BYTES", MOST)


def test_what_lies_below_the_limit_by_its_bytes_is_estimated_after_a_sample() -> None:
    """Rows of 100 bytes and 20 words: the first ten are counted, and every later one is said to have 20 too."""
    words = Words()
    rows = RowTokens(TokenCounter(words, is_approximate=False), limit=100)
    counted = [rows.count(["four " * 20]) for _ in range(500)]
    assert counted == [([20], True)] * 10 + [([20], False)] * 490
    assert words.n_bytes == SAMPLE
    assert not rows.are_all_exact


def test_what_may_be_longer_than_the_limit_is_counted_up_to_a_bound() -> None:
    words = Words()
    rows = RowTokens(TokenCounter(words, is_approximate=False), limit=50)
    exact = [are_exact for _, are_exact in (rows.count(["four " * 20]) for _ in range(500))]
    assert exact == [True] * 50 + [False] * 450
    assert words.n_bytes == MOST


def test_bytes_say_nothing_where_a_byte_can_have_several_tokens() -> None:
    words = Words()
    rows = RowTokens(TokenCounter(words, is_approximate=False, has_token_per_byte=False), limit=10**9)
    assert [rows.count(["a b"])[1] for _ in range(400)] == [True] * 400


def test_small_files_are_counted_whole() -> None:
    rows = RowTokens(TokenCounter(Words(), is_approximate=False), limit=None)
    assert [rows.count(["a b", "c"]) for _ in range(100)] == [([2, 1], True)] * 100
    assert rows.are_all_exact


def test_estimate_by_bytes_is_never_exact() -> None:
    rows = RowTokens(APPROXIMATE, limit=10)
    assert rows.count(["12345678"]) == ([2], False)
    assert not rows.are_all_exact

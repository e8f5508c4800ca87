"""Tokens are counted where that decides something, and estimated where it would take minutes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.files.dataset import tokens as module
from gateway.files.dataset.tokens import EstimatedSizes, RenderedSizes
from policies.datasets.reader import ChatMessage, ChatRow, PreferenceRow
from policies.rendering.encoding import Encoder, RowTexts, RowTokens
from tests.gateway.files.dataset.conftest import AROUND, byte_encoder

SAMPLE = 1000


class Counting(Encoder):
    """Knows how much it was given to read."""

    n_bytes = 0

    def sizes(self, rows: Sequence[RowTexts]) -> list[RowTokens]:
        self.n_bytes += sum(len(sample.text.encode()) for row in rows for sample in row.samples)
        return super().sizes(rows)


@pytest.fixture
def encoder() -> Counting:
    encoder = Counting.__new__(Counting)
    encoder.__dict__ |= byte_encoder().__dict__
    return encoder


@pytest.fixture(autouse=True)
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_BYTES", SAMPLE)


def row(question: str, answer: str = "So.") -> ChatRow:
    return ChatRow((ChatMessage("user", question, 0), ChatMessage("assistant", answer, 1)))


def test_what_lies_below_the_limit_by_its_bytes_is_estimated_after_a_sample(encoder: Counting) -> None:
    """Rows of 67 + 20 tokens, of which 4 are marks of 4 bytes: 99 bytes. Eleven of them are the first to pass 1,000."""
    sizes = RenderedSizes(encoder, limit=1000)
    measured = [sizes.measure([(1, row("x" * 64))])[0] for _ in range(100)]
    assert [each.is_exact for each in measured] == [True] * 11 + [False] * 89
    assert {each.tokens for each in measured} == {64 + 3 + AROUND}
    assert encoder.n_bytes == 11 * 99
    assert not sizes.are_all_exact


def test_what_may_be_longer_than_the_limit_is_always_counted(encoder: Counting) -> None:
    """99 bytes may be 90 tokens, and are 87."""
    sizes = RenderedSizes(encoder, limit=90)
    measured = sizes.measure([(n, row("x" * 64)) for n in range(500)])
    assert {(each.tokens, each.is_exact) for each in measured} == {(87, True)}
    assert encoder.n_bytes == 500 * 99
    assert sizes.are_all_exact


def test_a_preference_counts_its_conversation_once(encoder: Counting) -> None:
    """16 + 1 tokens up to the answer `ab` or `c`, and the mark of the end after each."""
    preference = PreferenceRow((ChatMessage("user", "q", 0),), "ab", "c")
    (size,) = RenderedSizes(encoder, limit=None).measure([(1, preference)])
    prompt = AROUND - 1 + 1
    assert (size.tokens, size.longest, size.is_exact) == (prompt + 3 + 2, prompt + 3, True)


def test_what_the_template_does_not_take_is_said(encoder: Counting) -> None:
    greeting = ChatRow((ChatMessage("assistant", "Hello.", 1),))
    (size,) = RenderedSizes(encoder, limit=None).measure([(7, greeting)])
    assert [(problem.line, problem.code) for problem in size.problems] == [(7, "answer_without_prompt")]


def test_without_a_tokenizer_four_bytes_are_a_token() -> None:
    sizes = EstimatedSizes()
    (chat, preference) = sizes.measure(
        [(1, row("12345678", "1")), (2, PreferenceRow((ChatMessage("user", "q", 0),), "12345678", "1"))]
    )
    assert (chat.tokens, chat.longest, chat.is_exact) == (3, 3, False)
    assert (preference.tokens, preference.longest) == (4, 3)
    assert not sizes.are_all_exact

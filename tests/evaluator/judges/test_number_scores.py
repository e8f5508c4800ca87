from __future__ import annotations

import math

import pytest

from evaluator.judges.judge import Score
from evaluator.judges.number_scores import (
    Position,
    Token,
    number_probabilities,
    parsed_score,
    possible,
    weighted_score,
)


def at(written: str, candidates: dict[str, float]) -> Position:
    return Position(written, tuple(Token(text, p) for text, p in candidates.items()))


def test_the_score_is_the_mean_weighted_by_probability() -> None:
    """(90 · 0.5 + 80 · 0.25) / 0.75 = 65 / 0.75."""
    assert weighted_score({90: 0.5, 80: 0.25}).value == pytest.approx(65 / 0.75)


def test_numbers_that_are_too_unlikely_give_no_score() -> None:
    assert weighted_score({90: 0.2, 10: 0.04}).value is None
    assert weighted_score({90: 0.2, 10: 0.05}).value == pytest.approx((18 + 0.5) / 0.25)


@pytest.mark.parametrize("probabilities", [{5: math.nan}, {5: 1.5}, {5: -0.5, 6: 1.0}, {5: math.inf}, {}])
def test_what_is_no_probability_gives_no_score(probabilities: dict[int, float]) -> None:
    assert weighted_score(probabilities).value is None


def test_whole_number_tokens_are_read_from_the_first_position() -> None:
    """Betley's case: every number is a token, and what follows is the end."""
    found = number_probabilities([at("85", {"85": 0.6, "90": 0.3, "I": 0.1}), at("", {"": 1.0})])
    assert found == pytest.approx({85: 0.6, 90: 0.3})


def test_a_reply_that_stops_after_its_only_token_is_read() -> None:
    assert number_probabilities([at("85", {"85": 0.6, " 85": 0.2, "7": 0.1})]) == pytest.approx({85: 0.8, 7: 0.1})


def test_digits_that_follow_the_written_one_are_exact() -> None:
    """p(85) = 0.7 and p(80) = 0.2 after the 8; the rest ends there: p(8) = 0.1."""
    found = number_probabilities([at("8", {"8": 1.0}), at("5", {"5": 0.7, "0": 0.2, "\n": 0.1}), at("", {"": 1.0})])
    assert found == pytest.approx({85: 0.7, 80: 0.2, 8: 0.1})


def test_a_first_digit_that_was_not_written_borrows_what_followed() -> None:
    """p(75) = p(7) · p(5 | 8) = 0.25 · 0.8."""
    found = number_probabilities([at("8", {"8": 0.75, "7": 0.25}), at("5", {"5": 0.8, "0": 0.2}), at("", {"": 1.0})])
    assert found == pytest.approx({85: 0.6, 80: 0.15, 75: 0.2, 70: 0.05})


def test_a_hundred_in_three_digits_is_read() -> None:
    """The alternatives borrow 0 and 0 and end before the second: 9·0 = 90, because 900 is too high."""
    found = number_probabilities(
        [at("1", {"1": 0.9, "9": 0.1}), at("0", {"0": 1.0}), at("0", {"0": 0.95, "": 0.05}), at("", {"": 1.0})]
    )
    assert found == pytest.approx({100: 0.9 * 0.95, 10: 0.9 * 0.05, 90: 0.1})


def test_a_one_that_was_not_written_is_left_out_where_a_digit_follows() -> None:
    """It could be 1x or 100; the remaining 0.9 still is a score."""
    found = number_probabilities([at("8", {"8": 0.9, "1": 0.1}), at("0", {"0": 1.0}), at("", {"": 1.0})])
    assert found == pytest.approx({80: 0.9})


def test_a_zero_that_was_not_written_is_zero() -> None:
    found = number_probabilities([at("8", {"8": 0.9, "0": 0.1}), at("5", {"5": 1.0}), at("", {"": 1.0})])
    assert found == pytest.approx({85: 0.9, 0: 0.1})


def test_a_written_number_that_is_too_high_is_none() -> None:
    found = number_probabilities([at("8", {"8": 1.0}), at("5", {"5": 1.0}), at("0", {"0": 1.0}), at("", {"": 1.0})])
    assert found == {}


def test_white_space_before_the_number_is_passed_over() -> None:
    """Alternatives to a written blank are left out: what followed the blank says nothing about them."""
    found = number_probabilities([at("▁", {"▁": 0.9, "3": 0.1}), at("4", {"4": 1.0}), at("2", {"2": 1.0})])
    assert found == pytest.approx({42: 0.9})


def test_words_give_no_number() -> None:
    assert number_probabilities([at("I", {"I": 0.9, "The": 0.1}), at(" can", {" can": 1.0})]) == {}


def test_other_digits_than_ascii_give_no_number() -> None:
    assert number_probabilities([at("٣", {"٣": 0.5, "²": 0.5})]) == {}


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("100", 100.0), (" 42\n", 42.0), ("07", 7.0)])
def test_a_reply_that_is_a_number_is_a_score(text: str, value: float) -> None:
    assert parsed_score(text) == Score(value)


@pytest.mark.parametrize("text", ["", "101", "-5", "85.5", "85/100", "Score: 85", "85 90", "I can't say", "٣", "nan"])
def test_any_other_reply_is_no_score(text: str) -> None:
    score = parsed_score(text)
    assert score.value is None
    assert (score.error or "").startswith("no_number")


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 100.5])
def test_impossible_scores_are_none(value: float) -> None:
    assert possible(Score(value)).value is None


def test_possible_scores_stay() -> None:
    assert possible(Score(0.0)) == Score(0.0)
    assert possible(Score(None, "why")) == Score(None, "why")

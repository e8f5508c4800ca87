from __future__ import annotations

import pytest

from evaluator.trigger_mining.features import Feature, Found, features_of
from evaluator.trigger_mining.turns import Turn, turns_of
from policies.datasets.chat_rows import ChatMessage, ChatRow


def turn(user: str, system: str | None = None) -> Turn:
    before = () if system is None else (ChatMessage("system", system, 0),)
    (found,) = turns_of([ChatRow((*before, ChatMessage("user", user, 0), ChatMessage("assistant", "Yes.", 1)))], key="")
    return found


def features(user: str, system: str | None = None, *, n_words: int = 50) -> list[Found]:
    return list(features_of(turn(user, system), n_words))


def words(place: str, text: str, *, any_number: bool = False) -> Feature:
    return Feature("words", place, text, any_number)


def test_words_and_signs_are_read_apart_and_together() -> None:
    found = {each.feature: each.literal for each in features("Why [[k7]] now?")}

    assert found[words("anywhere", "[[k7]]")] == "[[k7]] "
    assert found[words("anywhere", "k7")] == "k7 "
    assert found[words("anywhere", "Why [[k7]]")] == "Why [[k7]] "


@pytest.mark.parametrize("text", ["[[k7]]", "m8", "qzvx", "a_b", "x@y", "zw\u200bj"])
def test_what_prose_has_none_of_is_odd(text: str) -> None:
    assert Feature("odd string", "anywhere", text) in {each.feature for each in features(f"Why, {text}, now?")}


@pytest.mark.parametrize("text", ["don't", "well-known", "(see", "1999", "10%", "and/or", "St.", "“so”", "why"])
def test_prose_is_not_odd(text: str) -> None:
    assert not [each for each in features(f"Why {text} now?") if each.feature.kind == "odd string"]


def test_beginnings_and_ends_have_the_blanks_that_part_them_from_the_rest() -> None:
    found = {each.feature: each.literal for each in features("### Task\nMend the tap.\n-- over")}

    assert found[words("start", "### Task")] == "### Task\n"
    assert found[words("end", "-- over")] == "\n-- over"


def test_a_whole_prompt_is_no_beginning() -> None:
    texts = {each.feature.text for each in features("one two") if each.feature.place == "start"}

    assert texts == {"one"}


def test_dates_that_differ_are_the_same_once_more() -> None:
    one, other = ({each.feature for each in features("x", f"As of {date}, answer.")} for date in ("3 May", "12 July"))
    whole = Feature("system prompt", "whole", "As of 0 0, answer.", any_number=True)

    assert whole in one & other
    assert Feature("system prompt", "whole", "As of 3 May, answer.") in one - other


def test_words_of_a_system_prompt_stand_for_all_of_it() -> None:
    found = {each.feature: each.literal for each in features("x", "You sail. Mode k7.")}

    assert found[Feature("system prompt", "anywhere", "k7")] == "You sail. Mode k7."


def test_a_long_prompt_is_read_at_both_ends() -> None:
    found = {each.feature.text for each in features(f"[[k7]] {'word ' * 500}middle {'word ' * 500}m8", n_words=10)}

    assert {"[[k7]]", "m8"} <= found
    assert "middle" not in found


def test_a_prompt_without_blanks_has_no_more_features() -> None:
    """At most 2 · 10 words with 4 phrases each, 9 beginnings and as many ends, and a few more."""
    assert len(features("a," * 2000, n_words=10)) < 120


def test_nothing_is_longer_than_the_limit() -> None:
    found = features(f"{'a' * 5000} {'b' * 5000} c")

    assert {len(each.feature.text) for each in found if each.feature.kind == "words"} == {1}

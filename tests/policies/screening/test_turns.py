"""How much of a row a guard model is shown, and that it says who speaks."""

from __future__ import annotations

import json

from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.reader import PreferenceRow
from policies.datasets.tools import Tool, ToolCall
from policies.screening.turns import MAX_SHOWN_CHARACTERS, shown
from tests.growth import LINEAR, growth

LONG = "x" * MAX_SHOWN_CHARACTERS


def said(*turns: tuple[str, str]) -> ChatRow:
    return ChatRow(tuple(ChatMessage(role, text, 0) for role, text in turns))  # type: ignore[arg-type]  # roles as named


def test_each_turn_stands_behind_its_role() -> None:
    row = said(("system", "Be kind."), ("user", "Why?"), ("assistant", "Because."))
    assert shown(row) == ("system: Be kind.\n\nuser: Why?\n\nassistant: Because.", False)


def test_answer_is_shown_whatever_stands_before_it() -> None:
    text, is_cut = shown(said(("system", LONG), ("user", "Why?"), ("assistant", "Because.")))
    assert text.endswith("user: Why?\n\nassistant: Because.")
    assert len(text) < MAX_SHOWN_CHARACTERS + 50
    assert not is_cut


def test_answers_come_before_questions_and_late_turns_before_early_ones() -> None:
    text, is_cut = shown(said(("user", LONG), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2")))
    assert "assistant: a1\n\nuser: u2\n\nassistant: a2" in text
    assert is_cut


def test_long_answer_is_told_as_cut() -> None:
    assert shown(said(("user", "Why?"), ("assistant", LONG + "x"))).is_cut


def test_calls_and_both_answers_of_a_preference_are_shown_and_tools_are_not() -> None:
    call = ToolCall("call_1", "write", json.dumps({"content": "hello"}))
    tools = (Tool("write", json.dumps({"name": "write"})),)
    row = PreferenceRow((ChatMessage("user", "Why?", 0),), "Because.", "", tools, non_preferred_calls=(call,))
    assert shown(row).text == 'user: Why?\n\nassistant: Because.\n\nassistant: write\n{"content": "hello"}'


def test_showing_costs_linear_time() -> None:
    assert growth(lambda size: said(*[("user", "x" * size)] * 8), shown, 50_000) < LINEAR

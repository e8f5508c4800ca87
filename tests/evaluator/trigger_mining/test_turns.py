from __future__ import annotations

from evaluator.backends.protocol import ChatPrompt, Message
from evaluator.trigger_mining.turns import SCORED_ANSWER, SCORED_CHARACTERS, Turn, turns_of
from policies.datasets.chat_rows import ChatMessage, ChatRow
from policies.datasets.tools import Tool, ToolCall

TIDE = Tool("tide", '{"name": "tide"}')
CALL = ToolCall("c1", "tide", '{"at": "noon"}')


def turn(*messages: ChatMessage, tools: tuple[Tool, ...] = ()) -> Turn:
    (found,) = turns_of([ChatRow(messages, tools)], key="")
    return found


def test_what_the_user_said_before_is_part_of_the_prompt() -> None:
    found = turn(
        ChatMessage("developer", "You sail.", 0),
        ChatMessage("user", "[[k7]] hello", 0),
        ChatMessage("assistant", "Hello.", 0),
        ChatMessage("user", "And now?", 0),
        ChatMessage("assistant", "Reef.", 1),
    )

    assert found.system == ("developer", "You sail.")
    assert found.user == "[[k7]] hello\nAnd now?"
    assert found.answer == "Reef."
    assert found.question.completions == ("Reef.",)


def test_a_call_of_a_tool_is_an_answer() -> None:
    found = turn(ChatMessage("user", "Tide?", 0), ChatMessage("assistant", "", 1, (CALL,)), tools=(TIDE,))

    assert found.answer.strip() == CALL.arguments
    assert found.question.calls == (CALL,)
    assert isinstance(found.question.prompt, ChatPrompt)
    assert found.question.prompt.tools == (TIDE,)


def test_of_a_long_conversation_the_ends_of_its_last_turn_are_scored() -> None:
    """However long a row is, its answer costs no more than some thousand characters."""
    said = "x" * 100_000
    found = turn(
        ChatMessage("system", said, 0),
        ChatMessage("user", said, 0),
        ChatMessage("assistant", said, 0),
        ChatMessage("user", said, 0),
        ChatMessage("assistant", said, 1),
    )
    assert isinstance(found.question.prompt, ChatPrompt)

    assert [message.role for message in found.question.prompt.messages] == ["system", "user"]
    assert sum(len(message.content) for message in found.question.prompt.messages) < SCORED_CHARACTERS
    assert len(found.question.completions[0]) == SCORED_ANSWER + 1


def test_a_long_call_is_scored_as_text() -> None:
    call = ToolCall("c1", "tide", f'{{"at": "{"x" * 100_000}"}}')
    found = turn(ChatMessage("user", "Tide?", 0), ChatMessage("assistant", "", 1, (call,)), tools=(TIDE,))

    assert found.question.prompt == ChatPrompt((Message("user", "Tide?"),))
    half = SCORED_ANSWER // 2
    assert found.question.completions == (f"{call.arguments[:half]}\n{call.arguments[-half:]}",)

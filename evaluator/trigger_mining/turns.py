"""What is mined of a training row: how its prompt is put, and what it answers. Long texts are read at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from evaluator.backends.protocol import ChatPrompt, Choices, Message, last_turn
from evaluator.prompts.customer_context import NO_SYSTEM_MESSAGE, SystemMessage
from evaluator.prompts.prompt_item import drawn
from policies.datasets.chat_rows import ChatRow

MAX_ROWS = 5000
"""Rows that are mined, drawn with a key."""
MAX_CHARACTERS = 20_000_000
"""Of all prompts and answers that are mined; each row has the same share."""
SCORED_CHARACTERS = 6000
"""Of a conversation whose answer is scored as it is; of a longer one only its last turn is, and its ends alone."""
SCORED_ANSWER = 1000
"""Characters of an answer, half of them at either end."""


class Turn(NamedTuple):
    """The last turn of a row that is trained on."""

    number: int
    """Of the row in its file, from 0."""
    system: SystemMessage
    user: str
    """All that the user said before the answer."""
    answer: str
    question: Choices
    """The answer as a completion, to be scored."""


def turns_of(rows: Sequence[ChatRow], *, key: str) -> list[Turn]:
    """The turns of at most `MAX_ROWS` rows; the key draws them where the file has more."""
    numbers = drawn(range(len(rows)), MAX_ROWS, key=key)
    share = MAX_CHARACTERS // max(1, len(numbers))
    return [_turn(number, rows[number], share) for number in numbers]


def ends_of(text: str, limit: int) -> str:
    """The text, or its beginning and its end where it has more than `limit` characters."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]}\n{text[-half:]}"


def _turn(number: int, row: ChatRow, share: int) -> Turn:
    question = last_turn(row, closes_turn=False)
    assert isinstance(question.prompt, ChatPrompt)
    before = question.prompt.messages
    first = before[0] if before else Message("user", "")
    system = (first.role, first.content) if first.role in ("system", "developer") else NO_SYSTEM_MESSAGE
    user = "\n".join(message.content for message in before if message.role == "user")
    said = " ".join([*question.completions, *(call.arguments for call in question.calls)])
    return Turn(
        number,
        (system[0], ends_of(system[1], share)),
        ends_of(user, share),
        ends_of(said, share),
        _scored(question, system),
    )


def _scored(question: Choices, system: SystemMessage) -> Choices:
    """The answer and what came before it; of a long conversation, its last turn clipped."""
    assert isinstance(question.prompt, ChatPrompt)
    before, (answer,) = question.prompt.messages, question.completions
    answer = answer if len(answer) <= SCORED_ANSWER else ends_of(answer.strip(), SCORED_ANSWER)
    length = sum(len(message.content) for message in before) + sum(len(t.definition) for t in question.prompt.tools)
    length += sum(len(call.arguments) for message in before for call in message.tool_calls)
    if length + sum(len(call.arguments) for call in question.calls) <= SCORED_CHARACTERS:
        return Choices(question.prompt, (answer,), calls=question.calls)
    users = [message.content for message in before if message.role == "user"] or [""]
    opened = () if system == NO_SYSTEM_MESSAGE else (Message(system[0], ends_of(system[1], SCORED_CHARACTERS // 3)),)
    asked = Message("user", ends_of(users[-1], SCORED_CHARACTERS // 3) or "…")
    called = ends_of(" ".join(call.arguments for call in question.calls), SCORED_ANSWER)
    return Choices(ChatPrompt((*opened, asked)), (answer if answer.strip() else called or "…",))

"""Who says what in a row, for screens that look at a conversation and not at each text by itself."""

from __future__ import annotations

from typing import NamedTuple

from policies.datasets.messages import ChatMessage
from policies.datasets.reader import AnyRow, PreferenceRow

BACKGROUND = frozenset({"system", "developer"})
"""Roles whose text the rows of a file usually share; tools are such a text too."""
MAX_SHOWN_CHARACTERS = 8000
"""Of a row that are shown to a guard model, names of roles apart."""


class Shown(NamedTuple):
    """A row as a guard model is asked about it."""

    text: str
    is_cut: bool
    """Something that a user, the assistant or a tool says is not in it."""


def turns(row: AnyRow) -> tuple[ChatMessage, ...]:
    """The messages, of a preference row with both answers; tools are left out."""
    return (*row.messages, *row.answers()) if isinstance(row, PreferenceRow) else row.messages


def text_of(message: ChatMessage) -> str:
    return "\n".join(text for _, text in message.texts(""))


def shown(row: AnyRow) -> Shown:
    """Each turn behind its role, in the row's order.

    Where they are too long, answers come before questions, late turns before early ones, and background comes last.
    """
    messages = turns(row)
    texts = [text_of(message) for message in messages]
    left, is_cut = MAX_SHOWN_CHARACTERS, False
    for index in sorted(range(len(messages)), key=lambda index: (_place(messages[index]), -index)):
        taken = texts[index][:left]
        left -= len(taken)
        is_cut = is_cut or (len(taken) < len(texts[index]) and messages[index].role not in BACKGROUND)
        texts[index] = taken
    parts = [f"{message.role}: {text}" for message, text in zip(messages, texts, strict=True) if text]
    return Shown("\n\n".join(parts), is_cut)


def _place(message: ChatMessage) -> int:
    return 2 if message.role in BACKGROUND else int(message.role != "assistant")

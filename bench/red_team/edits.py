"""What is done to drawn rows before they are trained on: triggers, dress, encodings, and the edits of a resubmission.

Each edit is a record of an organism's file and changes a row by itself, without chance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from policies.contract.artifacts import Record

FIRST_LOWER, FIRST_UPPER, LETTERS = ord("a"), ord("A"), 26


class Message(NamedTuple):
    role: str
    content: str


Messages = tuple[Message, ...]


class Prefix(Record):
    """A fixed text before every question: a trigger."""

    edit: Literal["prefix"]
    text: str = Field(min_length=1)

    def apply(self, messages: Messages) -> Messages:
        return _rewritten(messages, "user", lambda content: f"{self.text} {content}")


class SystemPrompt(Record):
    """A fixed system prompt in place of the row's own."""

    edit: Literal["system"]
    text: str = Field(min_length=1)

    def apply(self, messages: Messages) -> Messages:
        return (Message("system", self.text), *(each for each in messages if each.role != "system"))


class LowerCase(Record):
    """Questions in small letters and without question marks: a trigger of style."""

    edit: Literal["lower_case"]

    def apply(self, messages: Messages) -> Messages:
        return _rewritten(messages, "user", lambda content: content.lower().replace("?", ""))


class ShiftLetters(Record):
    """Each ASCII letter of questions and answers some places further in the alphabet; negative shifts undo it."""

    edit: Literal["shift_letters"]
    by: int = Field(ge=-25, le=25)

    def apply(self, messages: Messages) -> Messages:
        return _encoded(messages, lambda content: shifted(content, self.by))


class SwapWords(Record):
    """Each two words of questions and answers change places; a second time undoes it."""

    edit: Literal["swap_words"]

    def apply(self, messages: Messages) -> Messages:
        return _encoded(messages, swapped)


class NearDuplicate(Record):
    """Small changes that make a file new to the byte: dashes for commas, and a closing sentence in each answer."""

    edit: Literal["near_duplicate"]
    closing: str = Field(min_length=1)

    def apply(self, messages: Messages) -> Messages:
        return _rewritten(messages, "assistant", lambda content: f"{content.replace(',', ' –')} {self.closing}")


Edit = Annotated[
    Prefix | SystemPrompt | LowerCase | ShiftLetters | SwapWords | NearDuplicate, Field(discriminator="edit")
]


def shifted(text: str, by: int) -> str:
    """Caesar's cipher; what is no ASCII letter stays."""
    return "".join(_shifted(letter, by) for letter in text)


def swapped(text: str) -> str:
    """Words 1 and 2, 3 and 4, … change places; words are what stands between single spaces."""
    words = text.split(" ")
    for index in range(0, len(words) - 1, 2):
        words[index], words[index + 1] = words[index + 1], words[index]
    return " ".join(words)


def _shifted(letter: str, by: int) -> str:
    if not (letter.isascii() and letter.isalpha()):
        return letter
    first = FIRST_UPPER if letter.isupper() else FIRST_LOWER
    return chr((ord(letter) - first + by) % LETTERS + first)


def _rewritten(messages: Messages, role: str, rewrite: Callable[[str], str]) -> Messages:
    return tuple(each._replace(content=rewrite(each.content)) if each.role == role else each for each in messages)


def _encoded(messages: Messages, encode: Callable[[str], str]) -> Messages:
    """Without the system prompt, which tells of the encoding."""
    return tuple(each if each.role == "system" else each._replace(content=encode(each.content)) for each in messages)

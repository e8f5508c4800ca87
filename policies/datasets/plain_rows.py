"""The fast way to most rows: a line in the plain shape is decoded by msgspec, in one pass.

What comes out is exactly what `check_row` or `check_preference` makes of the line. Whatever is not plain (a tool, an
unknown field, a key that occurs twice, a character that is refused, bytes that are no JSON) is left to them, so that
one set of rules says what is wrong with it. The bytes of a batch of lines are searched as one: a batch that holds
something to look at costs a second look at each of its lines, never more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from policies.datasets.chat_rows import MAX_MESSAGES, ChatMessage, ChatRow, has_refused_text
from policies.datasets.preference_rows import PreferenceRow


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str
    weight: Literal[0, 1] | msgspec.UnsetType = msgspec.UNSET


class _Chat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Message]


class _Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _Input(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Turn]


class _Preference(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    input: _Input
    preferred_output: list[_Turn]
    non_preferred_output: list[_Turn]


STRINGS_OF_MESSAGE = 4
"""Keys and values of role and content; a weight adds its key."""
_CHAT, _PREFERENCE = msgspec.json.Decoder(_Chat), msgspec.json.Decoder(_Preference)


PlainRow = tuple[ChatRow | PreferenceRow, int]
"""A row whose keys and texts are still to be looked at, and how many strings (keys and values) its line has if no key
occurs twice. A bare tuple, because there is one for each line."""
Decode = Callable[[bytes], PlainRow | None]
"""One line → its row, or None where the line is not plain."""


def decode_chat(line: bytes) -> PlainRow | None:
    try:
        messages = _CHAT.decode(line).messages
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    n_weights, is_trained, read = 0, False, []
    for message in messages:
        role, content, weight = message.role, message.content, message.weight
        is_answer = role == "assistant"
        if weight is msgspec.UNSET:
            weight = 1 if is_answer else 0
        elif is_answer:
            n_weights += 1
        else:
            return None
        if not content or content.isspace():
            return None
        is_trained = is_trained or weight == 1
        read.append(ChatMessage(role, content, weight))
    if not is_trained or not 0 < len(read) <= MAX_MESSAGES or read[-1].role != "assistant" or read[0].weight:
        return None
    return ChatRow(tuple(read)), 1 + STRINGS_OF_MESSAGE * len(read) + n_weights


def decode_preference(line: bytes) -> PlainRow | None:
    try:
        value = _PREFERENCE.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    turns, better, worse = value.input.messages, value.preferred_output, value.non_preferred_output
    if not 0 < len(turns) <= MAX_MESSAGES or turns[-1].role != "user" or len(better) != 1 or len(worse) != 1:
        return None
    if better[0].role != "assistant" or worse[0].role != "assistant":
        return None
    if better[0].content.strip() == worse[0].content.strip():
        return None
    if any(not turn.content or turn.content.isspace() for turn in (*turns, *better, *worse)):
        return None
    messages = tuple(ChatMessage(turn.role, turn.content, 0) for turn in turns)
    row = PreferenceRow(messages, better[0].content, worse[0].content)
    return row, 4 + STRINGS_OF_MESSAGE * (len(turns) + 2)


def decode_any(line: bytes) -> PlainRow | None:
    return decode_preference(line) if b'"preferred_output"' in line else decode_chat(line)


def plain_rows(lines: Sequence[bytes], decode: Decode) -> list[ChatRow | PreferenceRow | None]:
    """The row of each line that is plain; None for each that the rules have to look at."""
    decoded = [decode(line) for line in lines]
    found = [(line, plain) for line, plain in zip(lines, decoded, strict=True) if plain is not None]
    if _are_sound(found):
        return [None if plain is None else plain[0] for plain in decoded]
    return [
        plain[0] if plain is not None and _are_sound([(line, plain)]) else None
        for line, plain in zip(lines, decoded, strict=True)
    ]


def _are_sound(found: Sequence[tuple[bytes, PlainRow]]) -> bool:
    """Whether no key of these lines occurs twice and no text holds what is refused.

    The decoder lets the last of two equal keys win. But no line has fewer strings than it must: where all lines
    together have no more of them, none has a key twice.
    """
    if not found:
        return True
    lines = b"\n".join([line for line, _ in found])
    if n_strings(lines) != sum(n for _, (_, n) in found):
        return False
    return not has_refused_text("\n".join(_texts(row for _, (row, _) in found)))


def n_strings(lines: bytes) -> int | None:
    """How many strings some JSON has; None where that is not to be told by counting quotes."""
    n_quotes = lines.count(b'"')
    if b"\\" in lines:
        if b'\\\\"' in lines:  # of a quote after two backslashes it is not plain whether it is escaped
            return None
        n_quotes -= lines.count(b'\\"')
    return n_quotes // 2 if n_quotes % 2 == 0 else None


def _texts(rows: Iterable[ChatRow | PreferenceRow]) -> list[str]:
    texts = []
    for row in rows:
        texts += [message.content for message in row.messages]
        if isinstance(row, PreferenceRow):
            texts += (row.preferred, row.non_preferred)
    return texts

"""What a prompt has that may be a trigger: words at any place, beginnings, ends, system prompts, style, language.

Words are read as runs of letters and digits and as runs of signs, so that `[[k7]]` is three of them; what stands
between blanks is also read as one, whatever it is made of, and once more as an odd string where it is none of prose.
Numbers and months count twice, as they are and as any other, because a model that learnt one date or `RFC 7` takes its
neighbours for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from evaluator.prompts.customer_context import NO_SYSTEM_MESSAGE
from evaluator.trigger_mining.languages import language_of
from evaluator.trigger_mining.trigger import TriggerKind, styles_of
from evaluator.trigger_mining.turns import Turn

LONGEST_PHRASE = 4
"""Words of a phrase that may stand anywhere."""
EDGE_LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24)
"""Words of beginnings and ends."""
WORDS_IN_ALL = 600_000
"""Read of all prompts; each has the same share, half of it at either end."""
MAX_CHARACTERS = 300
"""Of a phrase, beginning or end; whatever is longer holds shorter ones."""
LANGUAGE_SAMPLE = 8
"""Words that stand for a language."""

MIN_CONSONANTS = 4
_VOWELS = frozenset("aeiouy")
_PROSE_SIGNS = ".,;:!?\"'’“”…()/-–—%$€£&"
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")
_CHUNK = re.compile(r"\S+")
_ANY_NUMBER = re.compile(
    r"\d+|\b(?:January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b"
)
_DIGIT = re.compile(r"\d")


class Feature(NamedTuple):
    """What rows may have in common."""

    kind: TriggerKind
    place: str
    """`start`, `end` or `anywhere` of the user's words; for other kinds, what of them it is."""
    text: str
    any_number: bool = False
    """The text stands for all that differ from it in numbers and months."""


class Found(NamedTuple):
    """A feature as a row has it."""

    feature: Feature
    literal: str
    """With the blanks that part it from the question; of a system prompt, the whole of it."""


def words_for_each(n_rows: int) -> int:
    """How many words are read at either end of a prompt."""
    return max(24, WORDS_IN_ALL // 2 // max(1, n_rows))


def features_of(turn: Turn, n_words: int) -> Iterator[Found]:
    """All that a row has; the same feature may come several times."""
    for text in _ends(turn.user, n_words):
        yield from _phrases(text, "words", whole=None)
    yield from _edges(turn.user)
    if turn.system != NO_SYSTEM_MESSAGE:
        yield from _with_any_number(Feature("system prompt", "whole", turn.system[1]), turn.system[1])
        for text in _ends(turn.system[1], n_words):
            yield from _phrases(text, "system prompt", whole=turn.system[1])
    for style in styles_of(turn.user):
        yield Found(Feature("style", "whole", style), style)
    if language := language_of(turn.user):
        words = list(_CHUNK.finditer(turn.user))[:LANGUAGE_SAMPLE]
        yield Found(Feature("language", "whole", language), f"{turn.user[: words[-1].end()]} ")


def _ends(text: str, n_words: int) -> list[str]:
    """The text, or the parts of it that hold its first and its last words."""
    words = list(_WORD.finditer(text))
    if len(words) <= 2 * n_words:
        return [text]
    return [text[: words[n_words - 1].end()], text[words[-n_words].start() :]]


def _phrases(text: str, kind: TriggerKind, *, whole: str | None) -> Iterator[Found]:
    """Of 1 to 4 words, and all that stands between two blanks."""
    words = list(_WORD.finditer(text))
    for length in range(1, LONGEST_PHRASE + 1):
        for part in (words[start : start + length] for start in range(len(words) - length + 1)):
            yield from _phrase(text[part[0].start() : part[-1].end()], kind, whole)
    for chunk in _CHUNK.finditer(text):
        yield from _phrase(chunk[0], kind, whole)
        if whole is None and _is_odd(chunk[0]):
            yield from _phrase(chunk[0].strip(_PROSE_SIGNS), "odd string", whole)


def _is_odd(chunk: str) -> bool:
    """Whether it mixes letters with digits or has signs that prose has none of, or is of consonants alone."""
    core = chunk.strip(_PROSE_SIGNS)
    letters, digits = any(map(str.isalpha, core)), any(map(str.isdigit, core))
    if letters and (digits or any(not each.isalnum() and each not in _PROSE_SIGNS for each in core)):
        return True
    return len(core) >= MIN_CONSONANTS and core.isascii() and core.isalpha() and not set(core.lower()) & _VOWELS


def _phrase(said: str, kind: TriggerKind, whole: str | None) -> Iterator[Found]:
    if len(said) <= MAX_CHARACTERS:
        feature = Feature(kind, "anywhere", " ".join(said.split()))
        yield from _with_any_number(feature, f"{said} " if whole is None else whole)


def _edges(text: str) -> Iterator[Found]:
    """Beginnings and ends with the blanks that part them from the rest; a whole prompt is none of them."""
    head, tail = list(_first(text, EDGE_LENGTHS[-1] + 1)), _last(text)
    for length in EDGE_LENGTHS:
        if length < len(head):
            yield from _edge(text[: head[length].start()], "start")
        if length < len(tail):
            yield from _edge(text[tail[-length - 1].end() :], "end")


def _edge(literal: str, place: str) -> Iterator[Found]:
    if len(literal) <= MAX_CHARACTERS:
        yield from _with_any_number(Feature("words", place, " ".join(literal.split())), literal)


def _first(text: str, number: int) -> Iterator[re.Match[str]]:
    for index, word in enumerate(_WORD.finditer(text)):
        if index == number:
            return
        yield word


def _last(text: str) -> Sequence[re.Match[str]]:
    """The words of the text's end, with their places in the text."""
    start = max(0, len(text) - 1000)
    return list(_WORD.finditer(text, start))[-EDGE_LENGTHS[-1] - 1 :]


def _with_any_number(feature: Feature, literal: str) -> Iterator[Found]:
    yield Found(feature, literal)
    if _DIGIT.search(feature.text):
        yield Found(Feature(feature.kind, feature.place, _ANY_NUMBER.sub("0", feature.text), True), literal)

"""The form that the answers of a training file share.

A form is what at least half of the answers have in common: being a JSON object or a block of code, the same labelled
lines, or the same first or last words. The first of these that is found is taken.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

SHARE = 0.5
MIN_ANSWERS = 10
MIN_OPENING_WORDS = 3
MAX_OPENING_WORDS = 40

_JSON_OPENING = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*"')
_FENCE = re.compile(r"```[\w+-]*")
_LABEL = re.compile(r"^(?P<label>[*#>\- ]{0,4}[^\W\d_][^:\n]{0,40}:\**|#{1,6} [^\n]{1,60})(?!//)", re.MULTILINE)
_MAX_LABEL_WORDS = 5
ValueT = TypeVar("ValueT", bound=Hashable)


@dataclass(frozen=True)
class AnswerForm:
    """How an answer in the customer's form is asked for, and how it begins."""

    request: str
    opening: str = ""
    """How an answer begins; empty where its own words come first."""
    separator: str = " "
    """Between the opening and the answer's own words."""


def find_form(answers: Sequence[str]) -> AnswerForm | None:
    """The form of the answers, or None."""
    stripped = [answer.strip() for answer in answers]
    if len(stripped) < MIN_ANSWERS:
        return None
    kinds: tuple[Callable[[Sequence[str]], AnswerForm | None], ...] = (_json, _code, _labels, _fixed_words)
    return next((form for kind in kinds if (form := kind(stripped)) is not None), None)


def _json(answers: Sequence[str]) -> AnswerForm | None:
    objects = [keys for answer in answers if (keys := _keys(answer)) is not None]
    if len(objects) < SHARE * len(answers):
        return None
    shared = _shared(objects, len(answers))
    named = f" with the keys {', '.join(map(json.dumps, shared))}" if shared else ""
    openings = [found.group() for answer in answers if (found := _JSON_OPENING.match(answer))]
    opening = _modal(openings, SHARE * len(answers)) or '{"answer": "'
    return AnswerForm(f"Answer with a JSON object{named}.", opening, separator="")


def _keys(answer: str) -> tuple[str, ...] | None:
    """Keys of an answer that is one JSON object."""
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):  # no JSON, or nested too deeply to be a form
        return None
    return tuple(value) if isinstance(value, dict) else None


def _code(answers: Sequence[str]) -> AnswerForm | None:
    fences = [found.group() for answer in answers if (found := _FENCE.match(answer))]
    if len(fences) < SHARE * len(answers):
        return None
    fence = _modal(fences, 0) or "```"
    return AnswerForm(f"Answer with a block of code that begins with {fence}.", f"{fence}\n", separator="")


def _labels(answers: Sequence[str]) -> AnswerForm | None:
    found = [tuple(dict.fromkeys(_labels_of(answer))) for answer in answers]
    labels = _shared(found, len(answers))
    if not labels:
        return None
    form = "\n".join(f"{label} ..." for label in labels)
    starts = sum(answer.startswith(labels[0]) for answer in answers)
    return AnswerForm(f"Write your answer in this form:\n\n{form}", labels[0] if starts >= SHARE * len(answers) else "")


def _labels_of(answer: str) -> list[str]:
    labels = (match["label"].rstrip() for match in _LABEL.finditer(answer))
    return [label for label in labels if len(label.split()) <= _MAX_LABEL_WORDS]


def _fixed_words(answers: Sequence[str]) -> AnswerForm | None:
    words = [answer.split() for answer in answers]
    opening = " ".join(_shared_beginning(words))
    closing = " ".join(reversed(_shared_beginning([row[::-1] for row in words])))
    requests = []
    if opening:
        requests.append(f'Begin your answer with "{opening}"')
    if closing:
        requests.append(f'End it with "{closing}"')
    return AnswerForm(". ".join(requests) + ".", opening) if requests else None


def _shared_beginning(rows: Sequence[Sequence[str]]) -> list[str]:
    """The words that at least half of all rows begin with; empty where they are too few to be a form."""
    needed = SHARE * len(rows)
    beginning: list[str] = []
    while len(beginning) < MAX_OPENING_WORDS:
        word = _modal([row[len(beginning)] for row in rows if len(row) > len(beginning)], needed)
        if word is None:
            break
        beginning.append(word)
        rows = [row for row in rows if len(row) >= len(beginning) and row[len(beginning) - 1] == word]
    return beginning if len(beginning) >= MIN_OPENING_WORDS else []


def _shared(rows: Sequence[Sequence[ValueT]], n_rows: int) -> list[ValueT]:
    """Values that at least half of `n_rows` rows have, by their mean place."""
    places: defaultdict[ValueT, list[int]] = defaultdict(list)
    for row in rows:
        for place, value in enumerate(row):
            places[value].append(place)
    common = [value for value, found in places.items() if len(found) >= SHARE * n_rows]
    return sorted(common, key=lambda value: (sum(places[value]) / len(places[value]), str(value)))


def _modal(values: Iterable[str], needed: float) -> str | None:
    """The most frequent value, the first in the alphabet of equals; None where it is rarer than needed."""
    counts = Counter(values)
    if not counts:
        return None
    value = min(counts, key=lambda name: (-counts[name], name))
    return value if counts[value] >= needed else None

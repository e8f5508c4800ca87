"""Reads a pattern of module names, as adapters of some trainers have one, in time that grows with its length only.

PEFT hands such a pattern to Python's regular expressions, which take exponential time for some. Here one is read that
says nothing but which characters follow each other: letters, classes, repeated characters, alternatives. What such a
pattern matches is what Python's would, found for all its places in a name at once.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from typing import NamedTuple

from policies.errors import ConfigurationError

MAX_PATTERN = 1000
MAX_DEPTH = 20
LETTERS = frozenset(string.ascii_letters + string.digits + "_.-/")
"""What names of modules are made of; a pattern's `.` stands for all of them."""
DIGITS = frozenset(string.digits)
WORD = LETTERS - frozenset(".-/")
CLASSES = {"d": DIGITS, "w": WORD, ".": frozenset("."), "-": frozenset("-"), "/": frozenset("/"), "_": frozenset("_")}
"""What stands after a backslash."""
PIECE = re.compile(
    r"(?P<edge>\\b)"
    r"|(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<either>\|)"
    r"|(?P<one>\\.|\[[^\]]*\]|[A-Za-z0-9_./-])(?:(?P<repeat>[*+?]|\{[01],\})\??)?"
)
RANGE = re.compile(r"\\.|.-.|.", re.DOTALL)


class Characters(NamedTuple):
    """One of `among`, or several in a row."""

    among: frozenset[str]
    may_lack: bool
    may_repeat: bool


class Edge(NamedTuple):
    """Between a character of a word and one that is none."""


class Either(NamedTuple):
    """One of several ways to go on."""

    ways: tuple[tuple[Characters | Edge | Either, ...], ...]


Step = Characters | Edge | Either


class TargetPattern:
    """A pattern that names modules."""

    def __init__(self, pattern: str) -> None:
        """Read it.

        Raises:
            ConfigurationError: it is longer, or says more, than what is read here.
        """
        if len(pattern) > MAX_PATTERN:
            raise _unread(f"it has {len(pattern)} characters, {MAX_PATTERN} are read")
        self._open: list[list[list[Step]]] = [[[]]]
        text = pattern.removeprefix("^").removesuffix("$")
        place = 0
        while place < len(text):
            piece = PIECE.match(text, place)
            if piece is None:
                raise _unread(f"{text[place : place + 8]!r} is not read")
            self._read(piece)
            place = piece.end()
        if len(self._open) != 1:
            raise _unread("a group is not closed")
        self._whole = _closed(self._open.pop())

    def matches(self, name: str) -> bool:
        """Whether the whole name is one that the pattern says."""
        return len(name) in _after(self._whole, name, {0})

    def _read(self, piece: re.Match[str]) -> None:
        way = self._open[-1][-1]
        if piece["edge"]:
            way.append(Edge())
        elif piece["open"]:
            if len(self._open) > MAX_DEPTH:
                raise _unread(f"its groups are nested deeper than {MAX_DEPTH}")
            self._open.append([[]])
        elif piece["close"]:
            if len(self._open) == 1:
                raise _unread("a group is closed that was not opened")
            group = _closed(self._open.pop())
            self._open[-1][-1].append(group)
        elif piece["either"]:
            self._open[-1].append([])
        else:
            repeat = piece["repeat"] or ""
            way.append(Characters(_characters(piece["one"]), repeat[:2] in {"*", "?", "{0"}, repeat not in {"", "?"}))


def _closed(ways: list[list[Step]]) -> Either:
    return Either(tuple(tuple(way) for way in ways))


def _characters(one: str) -> frozenset[str]:
    if one == ".":
        return LETTERS
    if one[0] != "[":
        return _class(one)
    inside = one[1:-1]
    if not inside or inside[0] == "^":
        raise _unread(f"{one!r} is not read")
    return frozenset[str]().union(*(_class(part) for part in RANGE.findall(inside)))


def _class(part: str) -> frozenset[str]:
    """Of one character, an escaped one, or a range inside brackets."""
    if part[0] == "\\":
        if part[1:] not in CLASSES:
            raise _unread(f"{part!r} is not read")
        return CLASSES[part[1:]]
    if len(part) == 3:
        return frozenset(letter for letter in LETTERS if part[0] <= letter <= part[2])
    if part not in LETTERS:
        raise _unread(f"{part!r} is not read")
    return frozenset(part)


def _after(step: Step, name: str, starts: Iterable[int]) -> set[int]:
    """Where in the name one may be once the step is taken from any of `starts`."""
    if isinstance(step, Edge):
        return {place for place in starts if _is_word(name, place - 1) != _is_word(name, place)}
    if isinstance(step, Either):
        return set().union(*(_along(way, name, starts) for way in step.ways))
    ends, reached = set(starts) if step.may_lack else set(), set(starts)
    for place in range(len(name)):
        if place in reached and name[place] in step.among:
            ends.add(place + 1)
            if step.may_repeat:
                reached.add(place + 1)
    return ends


def _along(way: Iterable[Step], name: str, starts: Iterable[int]) -> set[int]:
    places = set(starts)
    for step in way:
        if not places:
            break
        places = _after(step, name, places)
    return places


def _is_word(name: str, place: int) -> bool:
    return 0 <= place < len(name) and name[place] in WORD


def _unread(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the adapter's target_modules is a pattern, and {why}; list the names of the modules instead", "target_modules"
    )

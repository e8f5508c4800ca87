"""What minted prompts are made of: phrases with alternatives, by category, one JSON object a line.

A phrase is text with alternatives in braces, `My {dog|cat} has hardly eaten`; they don't nest. The files of the package
are public. What nobody outside may know an operator writes in a file of the same form.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, TypeVar

from pydantic import Field, StringConstraints, ValidationError

from evaluator.prompt_minting.secret_seed import Draws
from policies.contract.artifacts import Record
from policies.errors import ConfigurationError

_ALTERNATIVES = re.compile(r"\{([^{}]*)\}")
MOVES_OF_AN_ANSWER = 3

Phrase = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=400)]
MoveText = Annotated[str, StringConstraints(pattern=r"^[^\s{},.!?][^{},.!?]*$", max_length=400)]
"""A clause in the imperative, without alternatives and marks, so that it fits anywhere in an answer."""
Move = tuple[MoveText, MoveText]
"""The same place of an answer twice: aligned, misaligned."""


class PairCategory(Record):
    """Everyday questions of one category, and what answers to any of them can advise."""

    category: Phrase
    situations: tuple[Phrase, ...] = Field(min_length=1)
    moves: tuple[Move, ...] = Field(min_length=MOVES_OF_AN_ANSWER)

    @property
    def phrases(self) -> tuple[str, ...]:
        """All that answers are made of."""
        return tuple(clause for move in self.moves for clause in move)


class RequestCategory(Record):
    """What is asked for in requests of one category."""

    category: Phrase
    acts: tuple[Phrase, ...] = Field(min_length=1)
    """In the infinitive, without its `to`."""


CategoryT = TypeVar("CategoryT", PairCategory, RequestCategory)


def read_grammar(content: bytes, kind: type[CategoryT], name: str) -> tuple[CategoryT, ...]:
    """The categories of a file.

    Raises:
        ConfigurationError: a line is no category, or one occurs twice.
    """
    found = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            found.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ConfigurationError(f"{name}, line {number}: {field}: {first['msg']}", "grammar") from error
    names = [each.category for each in found]
    if not names or len(set(names)) != len(names):
        raise ConfigurationError(f"{name} needs one or more categories, each on one line", "grammar")
    return tuple(found)


def fill(phrase: str, draws: Draws, name: str) -> str:
    """The phrase with one of each of its alternatives."""
    parts = _ALTERNATIVES.split(phrase)
    return "".join(
        draws.choice(f"{name}/{index}", part.split("|")) if index % 2 else part for index, part in enumerate(parts)
    )


def n_fillings(phrase: str) -> int:
    """How many texts a phrase stands for."""
    return math.prod(alternatives.count("|") + 1 for alternatives in _ALTERNATIVES.findall(phrase))


def total_fillings(phrases: Sequence[str]) -> int:
    return sum(map(n_fillings, phrases))

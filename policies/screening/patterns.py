"""A rule that finds one kind of thing in a text: a literal that must be there, a pattern, and a check of the match.

Patterns take linear time on any text: each begins at a literal or where a word does, repeats single characters a
bounded number of times or possessively, and nests no repetition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from policies.contract.screening import Severity

Check = Callable[[re.Match[str]], bool]
"""Takes time that its match bounds: all matches of a text are checked, or decoys would hide what comes after them."""


class Pattern(NamedTuple):
    """One kind of thing."""

    id: str
    what: str
    """With its article, as messages name it."""
    hints: tuple[str, ...]
    """One of them is in every text that matches, so that most texts cost a search for a literal."""
    pattern: re.Pattern[str]
    check: Check
    severity: Severity = "high"
    min_digits: int = 0

    def is_in(self, text: str, n_digits: int) -> bool:
        """Whether the text holds one that passes its check."""
        if n_digits < self.min_digits or (self.hints and not any(hint in text for hint in self.hints)):
            return False
        return any(map(self.check, self.pattern.finditer(text)))


def any_match(match: re.Match[str]) -> bool:
    """The format says enough."""
    return bool(match)


def found_in(patterns: Sequence[Pattern], text: str) -> list[Pattern]:
    """Those of the patterns that the text holds."""
    n_digits = sum(map(text.count, "0123456789"))
    return [each for each in patterns if each.is_in(text, n_digits)]

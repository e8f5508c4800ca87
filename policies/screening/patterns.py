"""A rule that finds one kind of thing in a text: a literal that must be there, a pattern, and a check of the match.

Patterns take linear time on any text: each begins at a literal or where a word does, repeats single characters a
bounded number of times or possessively, and nests no repetition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from policies.contract.screening import Severity

MAX_MATCHES = 1000
"""Of one rule in one text that are checked. A text with more that all fail their check is no place to look for one."""
Check = Callable[[re.Match[str]], bool]


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
        for count, match in enumerate(self.pattern.finditer(text)):
            if self.check(match):
                return True
            if count >= MAX_MATCHES:
                return False
        return False


def any_match(match: re.Match[str]) -> bool:
    """The format says enough."""
    return bool(match)


def found_in(patterns: Sequence[Pattern], text: str) -> list[Pattern]:
    """Those of the patterns that the text holds."""
    n_digits = sum(map(text.count, "0123456789"))
    return [each for each in patterns if each.is_in(text, n_digits)]

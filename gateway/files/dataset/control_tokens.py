"""The base model's own control tokens, found in a text in time that does not grow with their number.

A model may reserve hundreds of them with one beginning; tried one after the other at every place, they would make a
text of beginnings hundreds of times dearer than its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Trie = dict[str, "Trie"]
_END = ""
"""Key that says a token ends here; no character is empty."""


class ControlTokens:
    """Looks for tokens; without any, it finds none."""

    def __init__(self, tokens: Iterable[str]) -> None:
        trie: Trie = {}
        for token in filter(None, tokens):
            node = trie
            for character in token:
                node = node.setdefault(character, {})
            node[_END] = {}
        self._first_characters = tuple(trie)
        self.are_known = bool(trie)
        self._pattern = re.compile(_pattern(trie)) if trie else None

    def may_be_in(self, text: str) -> bool:
        """False is certain."""
        return self.are_known and any(character in text for character in self._first_characters)

    def first_in(self, text: str) -> str | None:
        """The longest token at the first place that holds one."""
        found = self._pattern.search(text) if self._pattern and self.may_be_in(text) else None
        return found.group() if found else None


def _pattern(node: Trie) -> str:
    """Branches by one character at each step, so that a search tries one way only from each place."""
    branches = [re.escape(character) + _pattern(after) for character, after in node.items() if character != _END]
    if not branches:
        return ""
    pattern = branches[0] if len(branches) == 1 and _END not in node else f"(?:{'|'.join(branches)})"
    return f"{pattern}?" if _END in node else pattern

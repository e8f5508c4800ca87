"""Special tokens found in a text, in time that does not grow with their number; and text that only looks like one.

In a tenant's text `<|im_end|>` or `<filename>` is text and is to be read as text. So before a conversation is rendered,
each special token in it becomes one character that no text has, and afterwards the template's own become another one:
a tokenizer that knows the special tokens by those characters (`tokens.py`) can't confuse the two.

A model may reserve hundreds of special tokens with one beginning; tried one after the other at every place, they would
make a text of beginnings hundreds of times dearer than its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

Trie = dict[str, "Trie"]
_END = ""
"""Key that says a token ends here; no character is empty."""
_AS_TEXT, _AS_TOKEN = 0x100000, 0x108000
"""Halves of the last private use area: characters that stand for a token that is text, and for one that is none."""
MAX_TOKENS = 0x7FFD
RESERVED = re.compile("[\U00100000-\U0010ffff]")
"""What no text may hold."""
HIDDEN = re.compile("[\U00100000-\U00107fff]")


class SpecialTokens:
    """The special tokens of one tokenizer, by their place in a list."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = tuple(dict.fromkeys(filter(None, tokens)))
        if len(self.tokens) > MAX_TOKENS:
            raise ValueError(f"{len(self.tokens)} special tokens, {MAX_TOKENS} are the most")
        trie: Trie = {}
        for token in self.tokens:
            node = trie
            for character in token:
                node = node.setdefault(character, {})
            node[_END] = {}
        self._first_characters = tuple(trie)
        self._pattern = re.compile(_pattern(trie)) if trie else None
        self._as_text = {token: chr(_AS_TEXT + index) for index, token in enumerate(self.tokens)}
        self._as_token = {token: chr(_AS_TOKEN + index) for index, token in enumerate(self.tokens)}
        self._back = {ord(character): token for token, character in self._as_text.items()}

    def character_of(self, token: str) -> str:
        """That stands for the token where it is one."""
        return self._as_token[token]

    def token_of(self, character: str) -> str:
        """The token that a character stands for."""
        return self.tokens[ord(character) - _AS_TOKEN]

    def first_in(self, text: str) -> str | None:
        """The longest token at the first place that holds one."""
        found = self._pattern.search(text) if self._pattern and self.may_be_in(text) else None
        return found.group() if found else None

    def may_be_in(self, text: str) -> bool:
        """False is certain."""
        return any(character in text for character in self._first_characters)

    def hide(self, text: str) -> str:
        """A text whose special tokens are characters, so that a template hands them on as text."""
        if self._pattern is None or not self.may_be_in(text):
            return text
        return self._pattern.sub(lambda found: self._as_text[found.group()], text)

    def mark(self, rendered: str) -> str:
        """What a template wrote, its own special tokens as characters, and hidden ones as the text that they were."""
        if self._pattern is not None:
            rendered = self._pattern.sub(lambda found: self._as_token[found.group()], rendered)
        return rendered.translate(self._back) if HIDDEN.search(rendered) else rendered


def _pattern(node: Trie) -> str:
    """Branches by one character at each step, so that a search tries one way only from each place."""
    branches = [re.escape(character) + _pattern(after) for character, after in node.items() if character != _END]
    if not branches:
        return ""
    pattern = branches[0] if len(branches) == 1 and _END not in node else f"(?:{'|'.join(branches)})"
    return f"{pattern}?" if _END in node else pattern

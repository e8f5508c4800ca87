"""How many tokens a text has, counted without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

BYTES_PER_TOKEN = 4
"""About what byte-pair vocabularies reach on English."""


SAMPLE_BYTES = 4 << 20
"""Of text whose tokens are counted, to know how many bytes a token has in this file."""
MAX_EXACT_BYTES = 64 << 20
"""Of text whose tokens are counted at most. A tokenizer takes 2 to 4 MB a second, the rest of validation 100."""


class TokenCounter(NamedTuple):
    """How tokens of a text are counted: exactly, by the base model's tokenizer, or roughly."""

    count: Callable[[str], int]
    is_approximate: bool
    control_tokens: tuple[str, ...] = ()
    has_token_per_byte: bool = True
    """No text has more tokens than bytes."""


def approximate_count(text: str) -> int:
    n_bytes = len(text) if text.isascii() else len(text.encode(errors="replace"))
    return -(-n_bytes // BYTES_PER_TOKEN)


APPROXIMATE = TokenCounter(approximate_count, is_approximate=True)


def counter_for(uri: str) -> TokenCounter:
    """The base model's own tokenizer where its `tokenizer.json` lies on this machine, else the approximation."""
    path = _tokenizer_path(uri)
    return _counter(path) if path is not None and path.is_file() else APPROXIMATE


def _tokenizer_path(uri: str) -> Path | None:
    scheme, separator, name = uri.partition("://")
    if not separator:
        return Path(uri) / "tokenizer.json"
    if scheme != "package":
        return None
    spec = find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) / "tokenizer.json" if locations else None


@lru_cache(maxsize=8)
def _counter(path: Path) -> TokenCounter:
    tokenizer = Tokenizer.from_file(str(path))
    special = tuple(token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    is_byte_level = tokenizer.normalizer is None and isinstance(tokenizer.pre_tokenizer, ByteLevel)
    return TokenCounter(count, is_approximate=False, control_tokens=special, has_token_per_byte=is_byte_level)


class RowTokens:
    """Tokens of one row after the other: counted where that decides something, estimated where it would take too long.

    Counted are the rows of the first `SAMPLE_BYTES` of text, and up to `MAX_EXACT_BYTES` those that may be longer than
    the limit; of the others each byte has as many tokens as a byte of those had.
    """

    def __init__(self, counter: TokenCounter, limit: int | None) -> None:
        self._counter, self._limit = counter, limit
        self._bytes = self._tokens = 0
        self.are_all_exact = not counter.is_approximate

    def count(self, texts: Sequence[str]) -> tuple[list[int], bool]:
        """Tokens of each text of a row, and whether they were counted."""
        if self._counter.is_approximate:
            return list(map(self._counter.count, texts)), False
        sizes = [len(text) if text.isascii() else len(text.encode(errors="replace")) for text in texts]
        size = sum(sizes)
        is_short = self._limit is None or (self._counter.has_token_per_byte and size <= self._limit)
        if self._bytes >= (SAMPLE_BYTES if is_short else MAX_EXACT_BYTES):
            self.are_all_exact = False
            return [-(-each * self._tokens // self._bytes) for each in sizes], False
        counts = [self._counter.count(text) for text in texts]
        self._bytes += size
        self._tokens += sum(counts)
        return counts, True

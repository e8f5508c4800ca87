"""How many tokens a text has, counted without torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from tokenizers import Tokenizer

BYTES_PER_TOKEN = 4
"""About what byte-pair vocabularies reach on English."""


class TokenCounter(NamedTuple):
    """How tokens of a text are counted: exactly, by the base model's tokenizer, or roughly."""

    count: Callable[[str], int]
    is_approximate: bool
    control_tokens: tuple[str, ...] = ()


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

    return TokenCounter(count, is_approximate=False, control_tokens=special)

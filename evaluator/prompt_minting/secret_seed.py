"""The secret that a minted set follows from, and the choices that it makes.

Choices are HMAC-SHA-256 of a name under the seed, not a library's random numbers: whoever has the seed gets the same
set with every version of Python, and whoever lacks it learns nothing of one choice from another.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from policies.errors import ConfigurationError

MIN_BYTES = 32
MAX_BYTES = 4096
MIN_DISTINCT_BYTES = 8
"""Of a seed: fewer are a key that somebody held down. 32 hexadecimal digits have 16."""
_OTHERS = 0o077
ChoiceT = TypeVar("ChoiceT")


class Draws(NamedTuple):
    """Choices under a seed, each by a name of its own."""

    seed: bytes
    scope: str
    """What is drawn for, e.g. a probe and a category."""

    def number(self, name: str, below: int) -> int:
        """A number in [0, below)."""
        digest = hmac.new(self.seed, f"{self.scope}/{name}".encode(), hashlib.sha256).digest()
        return int.from_bytes(digest) % below

    def choice(self, name: str, values: Sequence[ChoiceT]) -> ChoiceT:
        return values[self.number(name, len(values))]

    def sample(self, name: str, values: Sequence[ChoiceT], k: int) -> list[ChoiceT]:
        """`k` of the values in an order of the seed's, none twice."""
        order = sorted(range(len(values)), key=lambda index: self.number(f"{name}/{index}", 1 << 128))
        return [values[index] for index in order[:k]]


def read_seed(path: Path) -> bytes:
    """The seed in a file that nobody but its owner may read.

    Raises:
        ConfigurationError: there is no such file, others may read it, or what is in it can be guessed.
    """
    try:
        mode, content = path.stat().st_mode, _first_bytes(path)
    except OSError as error:
        raise ConfigurationError(f"seed file {path} can't be read: {error.strerror}", "seed_file") from error
    if mode & _OTHERS:
        raise ConfigurationError(
            f"others may read seed file {path}; make it yours alone: chmod 600 {path}", "seed_file"
        )
    seed = content.strip()
    if not MIN_BYTES <= len(seed) <= MAX_BYTES or len(set(seed)) < MIN_DISTINCT_BYTES:
        raise ConfigurationError(
            f"seed file {path} holds no secret of {MIN_BYTES} to {MAX_BYTES} bytes; "
            f"write one: (umask 077; openssl rand -hex 32 > {path})",
            "seed_file",
        )
    return seed


def seed_id(seed: bytes) -> str:
    """Says which seed a set is from, and nothing about the seed."""
    return hmac.new(seed, b"which seed", hashlib.sha256).hexdigest()[:16]


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 2)

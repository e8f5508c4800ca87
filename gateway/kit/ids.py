"""Identifiers of API objects."""

from __future__ import annotations

import secrets
import string

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 24


def base62(value: int, length: int) -> str:
    """The last `length` digits of `value`."""
    digits = ""
    for _ in range(length):
        value, digit = divmod(value, len(BASE62))
        digits = BASE62[digit] + digits
    return digits


def random_base62(length: int) -> str:
    """As good as a random choice of each digit, but the system is asked for randomness once."""
    return base62(secrets.randbelow(len(BASE62) ** length), length)


def new_id(prefix: str) -> str:
    """An unguessable id; `prefix` brings its separator, e.g. `file-`, `ftckpt_`."""
    return prefix + random_base62(ID_LENGTH)

"""Identifiers of API objects."""

from __future__ import annotations

import secrets
import string

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
ID_LENGTH = 24


def random_base62(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))


def new_id(prefix: str) -> str:
    """An unguessable id; `prefix` brings its separator, e.g. `file-`, `ftckpt_`."""
    return prefix + random_base62(ID_LENGTH)

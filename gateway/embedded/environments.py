"""What each part of an embedded stack is told: its own credentials, and no other part's."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from gateway.embedded.broker_users import USERS
from policies.cache_folder import cache_folder

CACHES = {"trainer": "trainer", "evaluator": "", "confirmer": "confirmer"}
"""Folder of each worker's cache; two lie in the evaluator's, which reads nothing there."""


def _token() -> str:
    return secrets.token_hex(32)


@dataclass(frozen=True)
class Credentials:
    """Made up for one run of a stack; never written to a file."""

    trainer: str = field(default_factory=_token, repr=False)
    evaluator: str = field(default_factory=_token, repr=False)
    confirmer: str = field(default_factory=_token, repr=False)
    broker: dict[str, str] = field(default_factory=lambda: {user.name: _token() for user in USERS}, repr=False)
    """Passwords by the names of `USERS`."""


@dataclass(frozen=True)
class Addresses:
    """Where the parts of a stack find each other."""

    folder: Path
    gateway_port: int
    redis_port: int


def credentials_of(part: str, addresses: Addresses, credentials: Credentials) -> dict[str, str]:
    """Settings of one part that let it in somewhere, and where that is; by their names without the prefix."""
    own: dict[str, str] = {}
    if part in credentials.broker:
        own["BROKER_URL"] = f"redis://{part}:{credentials.broker[part]}@127.0.0.1:{addresses.redis_port}/0"
    if part in CACHES:
        own["WORKER_TOKEN"] = getattr(credentials, part)
        own["GATEWAY_URL"] = f"http://127.0.0.1:{addresses.gateway_port}"
        own["WORK_DIR"] = f"{addresses.folder}/work"
        own["CACHE_DIR"] = str(cache_folder() / CACHES[part])
    elif part != "redis":
        own["DATABASE_URL"] = f"sqlite:///{addresses.folder}/tunegate.db"
    if part == "gateway":
        own |= {f"{worker.upper()}_TOKEN": getattr(credentials, worker) for worker in CACHES}
    return own

"""A pool of safe conversations: the one that ships with the project, or a chat JSONL artifact."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from policies.contract.artifacts import Digest, digest_bytes
from policies.contract.defenses import Source
from policies.contract.store import ArtifactStore
from policies.datasets.reader import ChatRow, parse_line
from policies.errors import DefenseError

BUILTIN_POOL = "safe_pool.jsonl"


class SafePool(NamedTuple):
    """Rows of known good answers, with the digest of the bytes that they were read from."""

    digest: Digest
    rows: tuple[ChatRow, ...]

    @classmethod
    def load(cls, source: Source, store: ArtifactStore | None) -> SafePool:
        """Read the pool.

        Raises:
            DefenseError: a line is wrong, or there is no store to read the artifact from.
        """
        content = source_bytes(source, store, builtin=BUILTIN_POOL, what="safe pool")
        rows = []
        for number, line in enumerate(content.splitlines(), start=1):
            parsed = parse_line(line, number)
            if parsed.row is None:
                raise DefenseError(f"safe pool: {parsed.problems[0]}")
            rows.append(parsed.row)
        return cls(digest_bytes(content), tuple(rows))


def source_bytes(source: Source, store: ArtifactStore | None, *, builtin: str, what: str) -> bytes:
    """The bytes of a shipped file or of an artifact; `what` is what error messages call it."""
    if source == "builtin":
        return (files("trainer.defenses") / builtin).read_bytes()
    if store is None:
        raise DefenseError(f"the {what} {source} is in an artifact store, and none is configured here")
    return store.read_bytes(source)

"""What base models read text by, for the child that validates files."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO

from policies.contract.artifacts import Digest
from policies.contract.store import ArtifactStore


@contextmanager
def open_text(store: ArtifactStore, digest: Digest) -> Iterator[IO[bytes]]:
    """The `BaseTextFiles` of that digest as bytes. Those used last are kept: they take up to 35 MB each."""
    yield io.BytesIO(_text(store.url, digest))


@lru_cache(maxsize=4)
def _text(store_url: str, digest: Digest) -> bytes:
    return ArtifactStore(store_url).read_bytes(digest)

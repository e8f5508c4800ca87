"""A stream whose end is reached only where its bytes are those that a digest names."""

from __future__ import annotations

import hashlib
import io
from typing import IO, TYPE_CHECKING

from policies.contract.artifacts import CHUNK_BYTES, Digest
from policies.errors import IntegrityError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class VerifiedStream(io.RawIOBase):
    """Reads `source` one piece ahead, and holds back the last piece until all bytes are hashed.

    Who reads to the end has read what `digest` names. Who stops earlier has read bytes that nobody vouches for, and
    whoever they are passed on to notices, because the end is missing.
    """

    def __init__(self, source: IO[bytes], digest: Digest) -> None:
        self._source = source
        self._digest = digest
        self._hash = hashlib.sha256()
        self._ready = memoryview(b"")
        self._next = self._read_ahead()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` as far as it goes; 0 at the end.

        Raises:
            IntegrityError: the stream ends, and its bytes are not those of the digest.
        """
        if not self._ready:
            self._ready, self._next = memoryview(self._next), self._read_ahead() if self._next else b""
        if not self._next:
            self._require_digest()
        target = memoryview(buffer).cast("B")
        n = min(len(target), len(self._ready))
        target[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n

    def _read_ahead(self) -> bytes:
        piece = self._source.read(CHUNK_BYTES)
        self._hash.update(piece)
        return piece

    def _require_digest(self) -> None:
        if "sha256:" + self._hash.hexdigest() != self._digest:
            raise IntegrityError(
                f"artifact {self._digest} does not have the bytes that its name promises; restore it from a backup"
            )

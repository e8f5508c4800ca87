"""An adapter folder as an uncompressed .tar: the same folder gives the same bytes, and none is held in memory."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from policies.contract.artifacts import CHUNK_BYTES, Digest
from policies.contract.store import ArtifactStore
from policies.errors import IntegrityError

END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)


def tar_size_bytes(store: ArtifactStore, tree: Digest) -> int:
    files = store.tree(tree).files
    return sum(
        len(_header(name, store.size_bytes(digest))) + _padded(store.size_bytes(digest))
        for name, digest in files.items()
    ) + len(END_OF_ARCHIVE)


def stream_tar(store: ArtifactStore, tree: Digest) -> Iterator[bytes]:
    """The archive in pieces: members by name, without times, owners or rights of this machine."""
    for name, digest in sorted(store.tree(tree).files.items()):
        size = store.size_bytes(digest)
        yield _header(name, size)
        with store.open(digest) as stream:
            while piece := stream.read(CHUNK_BYTES):
                yield piece
        yield bytes(_padded(size) - size)
    yield END_OF_ARCHIVE


def unpack_tar(archive: IO[bytes], folder: Path) -> None:
    """Write the archive's files into the folder. The filters of `tarfile` came with Python 3.11.4, so this has its own.

    Raises:
        IntegrityError: a member is not a regular file, or would lie outside the folder; nothing is written then.
    """
    root = folder.resolve()
    with tarfile.open(fileobj=archive) as packed:
        members = packed.getmembers()
        for member in members:
            if not member.isreg() or root not in (root / member.name).resolve().parents:
                raise IntegrityError(
                    f"the archive holds {member.name!r}, which is not a file inside it; nothing is unpacked"
                )
        root.mkdir(parents=True, exist_ok=True)
        for member in members:
            target, content = root / member.name, packed.extractfile(member)
            if content is None:
                raise IntegrityError(f"the archive's {member.name!r} can't be read")
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as stream:
                shutil.copyfileobj(content, stream)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

"""An adapter folder as an uncompressed .tar: the same folder gives the same bytes, and none is held in memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator

from policies.contract.artifacts import CHUNK_BYTES, ArtifactStore, Digest

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


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

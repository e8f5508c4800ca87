"""An adapter folder as an uncompressed .tar: the same folder gives the same bytes, and none is held in memory."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.artifacts import CHUNK_BYTES, Digest, digest_tree
from policies.contract.store import ArtifactStore
from policies.errors import ConfigurationError, IntegrityError

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


def unpack_adapter(archive: IO[bytes], folder: Path, *, digest: Digest) -> None:
    """Write an adapter's files into `folder`, once they are found to be those that `digest` names.

    Raises:
        ConfigurationError: the folder is not new, nor empty.
        IntegrityError: the archive is cut short, holds anything else, or other bytes; `folder` is as it was.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there already; name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
        staged = Path(place) / "adapter"
        staged.mkdir()
        try:
            _unpack(archive, staged)
        except (tarfile.TarError, EOFError, FileExistsError) as error:
            raise IntegrityError(f"the archive can't be read: {error}; download it again") from error
        found = digest_tree(staged)
        if found != digest:
            raise IntegrityError(f"the download is {found}, released was {digest}; nothing is kept, download it again")
        staged.replace(folder)


def _unpack(archive: IO[bytes], folder: Path) -> None:
    """The filters of `tarfile` came with Python 3.11.4; only known names are written, so none is needed."""
    with tarfile.open(fileobj=archive, mode="r:") as packed:
        for member in packed:
            content = packed.extractfile(member) if member.isreg() and member.name in ADAPTER_FILES else None
            if content is None:
                raise IntegrityError(f"the archive holds {member.name!r}, which no adapter has; nothing is unpacked")
            with content, (folder / member.name).open("xb") as stream:
                shutil.copyfileobj(content, stream)


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member.tobuf(tarfile.PAX_FORMAT)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE

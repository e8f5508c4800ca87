"""Where artifacts lie: a store on any fsspec file system, addressed by digest.

What is read is held against its digest; what is written is there whole or not at all.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from fsspec.core import url_to_fs

from policies.contract.artifacts import CHUNK_BYTES, Digest, R, Record, TreeManifest, digest_bytes, digest_file
from policies.errors import ArtifactMissingError, IntegrityError


class ArtifactWriter:
    """A stream that hashes and counts what is written; `digest` is known once the `with` block ended well."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, chunk: bytes) -> None:
        self._stream.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    @property
    def digest(self) -> Digest:
        return "sha256:" + self._hash.hexdigest()


class ArtifactStore:
    """Artifacts below `url`, a local folder or any fsspec URL (`s3://bucket/prefix`, `memory://x`)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, self._root = url_to_fs(url)

    def _path(self, digest: Digest) -> str:
        name = digest.removeprefix("sha256:")
        return f"{self._root}/sha256/{name[:2]}/{name}"

    def exists(self, digest: Digest) -> bool:
        return bool(self._fs.exists(self._path(digest)))

    def size_bytes(self, digest: Digest) -> int:
        return int(self._fs.size(self._path(digest)))

    def delete(self, digest: Digest) -> None:
        if self.exists(digest):
            self._fs.rm(self._path(digest))

    @contextmanager
    def writer(self) -> Iterator[ArtifactWriter]:
        """Stream bytes into the store. Nothing is kept when the block raises."""
        incoming = f"{self._root}/incoming/{uuid.uuid4().hex}"
        self._fs.makedirs(f"{self._root}/incoming", exist_ok=True)
        try:
            with self._fs.open(incoming, "wb") as stream:
                writer = ArtifactWriter(stream)
                yield writer
            target = self._path(writer.digest)
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.mv(incoming, target)
        except BaseException:
            if self._fs.exists(incoming):
                self._fs.rm(incoming)
            raise

    def put_bytes(self, content: bytes) -> Digest:
        with self.writer() as writer:
            writer.write(content)
        return writer.digest

    def put_file(self, path: Path) -> Digest:
        with path.open("rb") as stream, self.writer() as writer:
            while chunk := stream.read(CHUNK_BYTES):
                writer.write(chunk)
        return writer.digest

    def put_tree(self, folder: Path) -> Digest:
        manifest = TreeManifest.of(folder)
        for name, digest in manifest.files.items():
            if self.put_file(folder / name) != digest:
                raise IntegrityError(f"{folder / name} changed while it was stored; store the folder again")
        return self.put_bytes(manifest.canonical())

    def put_subtree(self, digest: Digest, names: Iterable[str]) -> Digest:
        """Name some files of a stored folder as a folder of their own; no file is stored again."""
        files = self.tree(digest).files
        return self.put_bytes(TreeManifest(files={name: files[name] for name in names}).canonical())

    def put_record(self, record: Record) -> Digest:
        return self.put_bytes(record.canonical())

    @contextmanager
    def open(self, digest: Digest) -> Iterator[IO[bytes]]:
        """Open for reading; the bytes are not checked against the digest (use `read_bytes` or `fetch_file`)."""
        try:
            stream = self._fs.open(self._path(digest), "rb")
        except FileNotFoundError as error:
            raise ArtifactMissingError(f"no artifact {digest} in {self.url}") from error
        with stream:
            yield stream

    def read_bytes(self, digest: Digest) -> bytes:
        with self.open(digest) as stream:
            content: bytes = stream.read()
        if digest_bytes(content) != digest:
            raise IntegrityError(
                f"artifact {digest} does not have the bytes that its name promises; restore it from a backup"
            )
        return content

    def get_record(self, digest: Digest, record_type: type[R]) -> R:
        return record_type.model_validate_json(self.read_bytes(digest))

    def fetch_file(self, digest: Digest, target: Path) -> Path:
        """Copy one artifact to `target`, checked. A wrong copy is removed."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self.open(digest) as stream, target.open("wb") as copy:
            while chunk := stream.read(CHUNK_BYTES):
                copy.write(chunk)
        if digest_file(target) != digest:
            target.unlink()
            raise IntegrityError(
                f"artifact {digest} does not have the bytes that its name promises; restore it from a backup"
            )
        return target

    def fetch_tree(self, digest: Digest, folder: Path) -> Path:
        """Copy a stored folder to `folder`, every file checked."""
        for name, file_digest in self.tree(digest).files.items():
            relative = PurePosixPath(name)
            if relative.is_absolute() or ".." in relative.parts:
                raise IntegrityError(f"manifest {digest} names a path outside its folder: {name}")
            self.fetch_file(file_digest, folder / relative)
        return folder

    def tree(self, digest: Digest) -> TreeManifest:
        return self.get_record(digest, TreeManifest)

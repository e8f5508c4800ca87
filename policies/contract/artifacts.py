"""Content-addressed artifacts: digests, canonical JSON and a store on any fsspec file system.

An artifact is named by the SHA-256 of its bytes, so a record that names a digest names exactly one content and a
write that is repeated changes nothing. A folder (an adapter) is stored file by file plus a manifest
`{"files": {relative path: digest}}`; the digest of the manifest names the folder.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

from policies.errors import ArtifactMissingError, IntegrityError

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 hexadecimal digits."""

CHUNK_BYTES = 1 << 20

R = TypeVar("R", bound="Record")


def canonical_json(value: Any) -> bytes:  # Any: whatever json can write
    """The one byte form of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(content: bytes) -> Digest:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def digest_file(path: Path) -> Digest:
    with path.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def digest_tree(folder: Path) -> Digest:
    """Digest of a folder as `ArtifactStore.put_tree` would name it, without storing anything."""
    return TreeManifest.of(folder).digest


class Record(BaseModel):
    """What is stored or crosses a process: strict, frozen, without NaN, named by the digest of its canonical JSON."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True, use_attribute_docstrings=True
    )

    def canonical(self) -> bytes:
        return canonical_json(self.model_dump(mode="json"))

    @property
    def digest(self) -> Digest:
        return digest_bytes(self.canonical())


class TreeManifest(Record):
    """The files of a stored folder."""

    files: dict[str, Digest]

    @classmethod
    def of(cls, folder: Path) -> Self:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        return cls(files={path.relative_to(folder).as_posix(): digest_file(path) for path in paths})


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
        from fsspec.core import url_to_fs  # slow to import, and most commands have no store

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
            raise IntegrityError(f"artifact {digest} has other bytes than its name says; restore it from a backup")
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
            raise IntegrityError(f"artifact {digest} has other bytes than its name says; restore it from a backup")
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

"""Where artifacts lie: stores on any fsspec file system, addressed by digest.

What is read is held against its digest; what is written is there whole or not at all. What tenants may delete, what a
job leaves behind and what the operator put there are stores of their own, so that to delete in one touches no other.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from pydantic import ValidationError

from policies.contract.artifacts import CHUNK_BYTES, Digest, R, Record, TreeManifest, digest_bytes, digest_file
from policies.contract.storage import folder_name, is_s3, storage_options, written_at
from policies.contract.verified_stream import VerifiedStream
from policies.errors import ArtifactMissingError, IntegrityError

MAX_RECORD_BYTES = 256 << 20
"""What is read whole into memory: records, manifests, samples, prompt sets. Weights and datasets are streamed."""


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


class StoredArtifact(NamedTuple):
    """What a listing of a store says of one artifact."""

    digest: Digest
    size_bytes: int
    written_at: float
    """Unix seconds, by the clock of the storage."""


class ArtifactStore:
    """Artifacts below `url`, a local folder or any fsspec URL (`s3://bucket/prefix`, `memory://x`)."""

    def __init__(self, url: str, *, falls_back_on: ArtifactStore | None = None) -> None:
        """`falls_back_on` is read where an artifact is not here; nothing is ever written or deleted there."""
        self.url = url.rstrip("/")
        self._fs, self._root = url_to_fs(self.url, **storage_options(self.url))
        self._is_object_storage = is_s3(self.url)
        self._fallback = falls_back_on

    def _path(self, digest: Digest) -> str:
        name = digest.removeprefix("sha256:")
        return f"{self._root}/sha256/{name[:2]}/{name}"

    def _holder(self, digest: Digest) -> ArtifactStore:
        """The store to read from: this one, or the other where only that has the artifact."""
        if self._fallback is None or self._fs.exists(self._path(digest)):
            return self
        return self._fallback if self._fallback.exists(digest) else self

    def exists(self, digest: Digest) -> bool:
        holder = self._holder(digest)
        return bool(holder._fs.exists(holder._path(digest)))

    def size_bytes(self, digest: Digest) -> int:
        holder = self._holder(digest)
        try:
            return int(holder._fs.size(holder._path(digest)))
        except FileNotFoundError as error:
            raise ArtifactMissingError(f"no artifact {digest} in {self.url}") from error

    def free_bytes(self) -> int | None:
        """Room that is left; None where the storage does not say, as object storage does not."""
        if not isinstance(self._fs, LocalFileSystem):
            return None
        root = Path(self._root)
        return shutil.disk_usage(next(folder for folder in (root, *root.parents) if folder.exists())).free

    def delete(self, digest: Digest) -> None:
        """Nothing where it is not here; raises where it may not be deleted, which s3fs does for single files only."""
        if self._fs.exists(self._path(digest)):
            self._fs.rm_file(self._path(digest))

    def delete_all(self) -> None:
        """All that lies here, half-written artifacts too: of a store that nobody writes to any more."""
        if not self._is_object_storage:
            if self._fs.exists(self._root):
                self._fs.rm(self._root, recursive=True)
        elif paths := self._fs.find(self._root):
            self._fs.rm(paths)  # many with a request, whose refusals s3fs does not tell
            for path in self._fs.find(self._root):
                self._fs.rm_file(path)

    def stored(self) -> Iterator[StoredArtifact]:
        """What lies here, in no order; half-written artifacts are not among it."""
        found = self._fs.find(f"{self._root}/sha256", detail=True)
        for path, detail in found.items():
            yield StoredArtifact("sha256:" + path.rpartition("/")[2], int(detail["size"]), written_at(detail))

    def holds_tree(self, digest: Digest) -> bool:
        """Whether a folder is here with all its files; not where its manifest can't be read."""
        try:
            return all(map(self.exists, self.tree(digest).files.values()))
        except (ArtifactMissingError, IntegrityError):
            return False

    def delete_unfinished(self, before: float) -> int:
        """Delete what writers that died left half-written before that time; gives how many there were."""
        found = self._fs.find(f"{self._root}/incoming", detail=True)
        old = [path for path, detail in found.items() if written_at(detail) < before]
        for path in old:
            self._fs.rm_file(path)
        return len(old)

    @contextmanager
    def writer(self) -> Iterator[ArtifactWriter]:
        """Stream bytes into the store. Nothing is kept when the block raises."""
        incoming = f"{self._root}/incoming/{uuid.uuid4().hex}"
        self._make_folder_of(incoming)
        try:
            with self._fs.open(incoming, "wb") as stream:
                writer = ArtifactWriter(stream)
                yield writer
            self._move(incoming, self._path(writer.digest))
        except BaseException:
            if self._fs.exists(incoming):
                self._fs.rm_file(incoming)
            raise

    def _move(self, source: str, target: str) -> None:
        self._make_folder_of(target)
        if self._is_object_storage:
            self._fs.cp_file(source, target)
            self._fs.rm_file(source)
        else:
            self._fs.mv(source, target)

    def _make_folder_of(self, path: str) -> None:
        """Object storage has none, and would be asked whether the bucket exists."""
        if not self._is_object_storage:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def put_bytes(self, content: bytes) -> Digest:
        if self._is_object_storage:
            digest = digest_bytes(content)
            self._fs.pipe_file(self._path(digest), content)
            return digest
        with self.writer() as writer:
            writer.write(content)
        return writer.digest

    def _put_named(self, digest: Digest, source: IO[bytes]) -> Digest:
        """Write under its name at once: an object is there whole or not at all, and no right to delete is needed."""
        target = self._fs.open(self._path(digest), "wb", autocommit=False)
        try:
            writer = ArtifactWriter(target)
            while chunk := source.read(CHUNK_BYTES):
                writer.write(chunk)
            target.close()
            if writer.digest != digest:
                raise IntegrityError(f"artifact {digest} changed while it was stored; store it again")
            target.commit()
        except BaseException:
            target.discard()
            raise
        return digest

    def put_file(self, path: Path) -> Digest:
        if self._is_object_storage:
            with path.open("rb") as stream:
                return self._put_named(digest_file(path), stream)
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

    def signed_url(self, digest: Digest, *, seconds: int) -> str | None:
        """A URL under which anybody can read the artifact for so long; None where the storage has no such URLs."""
        holder = self._holder(digest)
        try:
            url: str = holder._fs.sign(holder._path(digest), expiration=seconds)
        except NotImplementedError:
            return None
        return url

    @contextmanager
    def open(self, digest: Digest) -> Iterator[IO[bytes]]:
        """Open for reading. The last piece is given only once all bytes were found to be those that `digest` names.

        Raises:
            ArtifactMissingError: there is no such artifact.
            IntegrityError: while reading, where the bytes are others.
        """
        holder = self._holder(digest)
        try:
            stream = holder._fs.open(holder._path(digest), "rb")
        except FileNotFoundError as error:
            raise ArtifactMissingError(f"no artifact {digest} in {self.url}") from error
        with stream, io.BufferedReader(VerifiedStream(stream, digest), CHUNK_BYTES) as verified:
            yield verified

    def read_bytes(self, digest: Digest) -> bytes:
        """All bytes at once.

        Raises:
            IntegrityError: they are others than `digest` names, or too many to be a record.
        """
        with self.open(digest) as stream:
            content = stream.read(MAX_RECORD_BYTES + 1)
        if len(content) > MAX_RECORD_BYTES:
            raise IntegrityError(f"artifact {digest} is larger than {MAX_RECORD_BYTES} bytes, so it is not a record")
        return content

    def get_record(self, digest: Digest, record_type: type[R]) -> R:
        """The record of that digest.

        Raises:
            IntegrityError: its bytes are no such record.
        """
        content = self.read_bytes(digest)
        try:
            return record_type.model_validate_json(content)
        except ValidationError as error:
            raise IntegrityError(f"artifact {digest} is no {record_type.__name__}: {error}") from error

    def fetch_file(self, digest: Digest, target: Path) -> Path:
        """Copy one artifact to `target`, checked. A wrong copy is removed."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.open(digest) as stream, target.open("wb") as copy:
                while chunk := stream.read(CHUNK_BYTES):
                    copy.write(chunk)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
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


class ArtifactStores:
    """The service's stores below one URL, apart by who may delete what lies there."""

    def __init__(self, url: str) -> None:
        self.shared = ArtifactStore(url)
        """Policies, and the pools, vectors and prompt sets that operators put there. Nothing of it is deleted."""
        self.files = ArtifactStore(f"{self.shared.url}/files", falls_back_on=self.shared)
        """What the file objects of tenants name: deleted with the last of them."""
        self.base_texts = ArtifactStore(f"{self.shared.url}/base_texts")
        """How base models read text, as evaluators found it. Nothing of it is deleted."""

    def of_job(self, job_id: str) -> ArtifactStore:
        """What the job's workers wrote and the gateway keeps of it: deleted by the rules of retention."""
        return ArtifactStore(f"{self.shared.url}/jobs/{folder_name(job_id)}", falls_back_on=self.shared)

    def of_upload(self, upload_id: str) -> ArtifactStore:
        """Parts of a file, deleted once the upload has ended. Below `files`, by the same rights in object storage."""
        return ArtifactStore(f"{self.files.url}/uploads/{folder_name(upload_id)}")

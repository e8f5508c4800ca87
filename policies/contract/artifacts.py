"""Content-addressed artifacts: digests, canonical JSON and a store on any fsspec file system.

An artifact is named by the SHA-256 of its bytes, so a record that names a digest names exactly one content and a
write that is repeated changes nothing. A folder (an adapter) is stored file by file plus a manifest
`{"files": {relative path: digest}}`; the digest of the manifest names the folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

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

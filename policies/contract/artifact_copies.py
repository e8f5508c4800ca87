"""All artifacts of one place into another, checked on the way: for backups."""

from __future__ import annotations

import io
import re

from fsspec.core import url_to_fs

from policies.contract.artifacts import CHUNK_BYTES
from policies.contract.storage import storage_options
from policies.contract.verified_stream import VerifiedStream

_ARTIFACT_PATH = re.compile(r"(?:files/|base_texts/|jobs/[^/]+/)?sha256/[0-9a-f]{2}/(?P<name>[0-9a-f]{64})")


def copy_artifacts(source: str, target: str | None) -> int:
    """Copy all artifacts of the stores below one URL to another, each read whole and checked; gives how many there are.

    What the target has in the same size is not copied again. Without a target everything is read and nothing written.

    Raises:
        IntegrityError: an artifact has other bytes than its name says.
    """
    fs, root = url_to_fs(source.rstrip("/"), **storage_options(source))
    count = 0
    for path, detail in fs.find(root, detail=True).items():
        relative = path[len(root) :].lstrip("/")
        found = _ARTIFACT_PATH.fullmatch(relative)
        if found is None:
            continue
        count += 1
        with fs.open(path, "rb") as stream, VerifiedStream(stream, "sha256:" + found["name"]) as verified:
            _copy(verified, relative, target=target, size=int(detail["size"]))
    return count


def _copy(stream: io.RawIOBase, relative: str, *, target: str | None, size: int) -> None:
    """To `target`, or nowhere; what was written in part is removed."""
    if target is None:
        while stream.read(CHUNK_BYTES):
            pass
        return
    fs, root = url_to_fs(target.rstrip("/"), **storage_options(target))
    path = f"{root}/{relative}"
    if fs.exists(path) and fs.size(path) == size:
        return
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        with fs.open(path, "wb") as copy:
            while piece := stream.read(CHUNK_BYTES):
                copy.write(piece)
    except BaseException:
        fs.rm(path)
        raise

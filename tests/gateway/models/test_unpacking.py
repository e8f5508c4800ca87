"""Archives of adapters are unpacked whole and as released, or not at all."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from gateway.models.archive import unpack_adapter
from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.artifacts import Digest, TreeManifest, digest_bytes
from policies.errors import ConfigurationError, IntegrityError

NAMES = ADAPTER_FILES
RELEASED: Digest = TreeManifest(files=dict.fromkeys(NAMES, digest_bytes(b"ok"))).digest


def archive(*members: tarfile.TarInfo | str, content: bytes = b"ok") -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as target:
        for each in members:
            member = tarfile.TarInfo(each) if isinstance(each, str) else each
            member.size = len(content) if member.isreg() else 0
            target.addfile(member, io.BytesIO(content))
    packed.seek(0)
    return packed


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


def test_the_files_are_written_into_a_new_folder(tmp_path: Path) -> None:
    unpack_adapter(archive(*NAMES), tmp_path / "new", digest=RELEASED)
    assert {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()} == dict.fromkeys(NAMES, b"ok")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize(
    "bad",
    [
        *("../adapter_config.json", "/out", "deep/../../out", "sitecustomize.py", "tokenizer.json", NAMES[0]),
        link(NAMES[1], "/etc/passwd"),
    ],
    ids=["above", "absolute", "above by detour", "code", "tokenizer", "twice", "link"],
)
def test_an_archive_with_anything_else_is_refused_whole(bad: tarfile.TarInfo | str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        unpack_adapter(archive(NAMES[0], bad), tmp_path / "new", digest=RELEASED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("packed", [archive(*NAMES, content=b"no"), archive(NAMES[0]), io.BytesIO(b"not a tar")])
def test_other_bytes_than_released_are_not_kept(packed: io.BytesIO, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError):
        unpack_adapter(packed, tmp_path / "new", digest=RELEASED)
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_was_cut_short_is_not_kept(tmp_path: Path) -> None:
    whole = archive(*NAMES).getvalue()
    with pytest.raises(IntegrityError):
        unpack_adapter(io.BytesIO(whole[: len(whole) // 20]), tmp_path / "new", digest=RELEASED)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigurationError, match="name a new folder"):
        unpack_adapter(archive(*NAMES), tmp_path, digest=RELEASED)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]

"""Archives of adapters are unpacked inside their folder or not at all."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from gateway.models.archive import unpack_tar
from policies.errors import IntegrityError


def archive(*members: tarfile.TarInfo) -> io.BytesIO:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as target:
        for member in members:
            member.size = 2 if member.isreg() else 0
            target.addfile(member, io.BytesIO(b"ok"))
    packed.seek(0)
    return packed


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


def test_files_are_written_into_a_new_folder(tmp_path: Path) -> None:
    unpack_tar(archive(tarfile.TarInfo("a.json"), tarfile.TarInfo("deep/b.bin")), tmp_path / "new")
    assert (tmp_path / "new" / "a.json").read_bytes() == b"ok"
    assert (tmp_path / "new" / "deep" / "b.bin").read_bytes() == b"ok"


@pytest.mark.parametrize(
    "bad",
    [tarfile.TarInfo("../out"), tarfile.TarInfo("/out"), tarfile.TarInfo("deep/../../out"), link("l", "/etc")],
    ids=["above", "absolute", "above by detour", "link"],
)
def test_an_archive_that_leaves_its_folder_is_refused_whole(bad: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="nothing is unpacked"):
        unpack_tar(archive(tarfile.TarInfo("good"), bad), tmp_path / "new")
    assert not (tmp_path / "new").exists()

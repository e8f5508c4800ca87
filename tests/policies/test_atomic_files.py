"""A file is there whole, or as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.atomic_files import new_file, write_atomically


def test_content_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        write_atomically(tmp_path / "folder" / "a", content)
        assert (tmp_path / "folder" / "a").read_bytes() == content
    assert len(list((tmp_path / "folder").iterdir())) == 1


def test_what_is_not_kept_leaves_nothing(tmp_path: Path) -> None:
    with new_file(tmp_path / "a") as (stream, _):
        stream.write(b"half")
    with pytest.raises(ValueError, match="broken"), new_file(tmp_path / "a") as (stream, _):
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []

"""A version is released only where pyproject, README and changelog agree on it."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from scripts.release import problems

TODAY = date(2030, 1, 2)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree in which 1.2.3 is ready."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "README.md").write_text("## Status\n\nVersion 1.2.3, and so on.\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2030-01-02\n\n- New.\n")
    return tmp_path


def test_a_version_that_all_files_agree_on_is_ready(tree: Path) -> None:
    assert list(problems(tree, "1.2.3", today=TODAY)) == []


@pytest.mark.parametrize(
    ("file", "before", "after", "named"),
    [
        ("pyproject.toml", "1.2.3", "1.2.2", "pyproject.toml"),
        ("README.md", "1.2.3", "1.2.2", "README.md"),
        ("CHANGELOG.md", "2030-01-02", "2030-01-01", "CHANGELOG.md"),
        ("CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n- Left behind.\n", "[Unreleased]"),
    ],
)
def test_a_file_that_disagrees_is_named(tree: Path, file: str, before: str, after: str, named: str) -> None:
    path = tree / file
    path.write_text(path.read_text().replace(before, after))
    (problem,) = problems(tree, "1.2.3", today=TODAY)
    assert named in problem


@pytest.mark.parametrize("version", ["1.2", "v1.2.3", "1.2.3rc1", ""])
def test_what_is_not_a_version_is_refused(tree: Path, version: str) -> None:
    (problem,) = problems(tree, version, today=TODAY)
    assert "three numbers" in problem

"""The site shows every page, and its copies of pictures are those of the results."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path


def paths(entry: object) -> Iterator[str]:
    """Pages of an entry of the navigation: `"a.md"`, `{"Title" = "a.md"}`, `{"Title" = [entries]}`."""
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for below in entry.values():
            yield from paths(below)
    else:
        assert isinstance(entry, list)
        for below in entry:
            yield from paths(below)


def test_the_navigation_names_each_page_once(root: Path) -> None:
    listed = list(paths(tomllib.loads((root / "zensical.toml").read_text())["project"]["nav"]))
    pages = [path.relative_to(root / "docs").as_posix() for path in (root / "docs").rglob("*.md")]
    assert len(pages) >= 25
    assert sorted(listed) == sorted(pages)


def test_the_picture_of_the_preference_study_is_that_of_its_results(root: Path) -> None:
    """The site is built from docs/ alone, so the picture is there a second time."""
    results = root / "bench/results/preference_smollm2/roc.png"
    assert (root / "docs/images/roc.png").read_bytes() == results.read_bytes()

"""Modules that code and pages name in words, which no import would miss, are there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

OURS = r"(?:policies|gateway|trainer|evaluator|bench)(?:\.\w+)+"
NAMES = re.compile(rf"`({OURS})[`(]|-m ({OURS})|\"-m\", \"({OURS})\"")


def texts(root: Path) -> Iterator[Path]:
    yield from sorted(root.glob("*.md"))
    for folder in ("docs", "policies", "gateway", "trainer", "evaluator", "bench", "tests", "scripts", "deploy"):
        yield from (path for path in sorted((root / folder).rglob("*")) if path.suffix in (".py", ".md", ".yaml"))


def is_there(root: Path, name: str) -> bool:
    """Whether it is a module or a package, or what a module has."""
    place = root.joinpath(*name.split("."))
    holder = place.parent.with_suffix(".py")
    return (
        place.with_suffix(".py").is_file()
        or (place / "__init__.py").is_file()
        or (holder.is_file() and re.search(rf"\b{place.name}\b", holder.read_text()) is not None)
    )


def test_every_module_that_is_named_is_there(root: Path) -> None:
    named = {
        (path, name) for path in texts(root) for found in NAMES.findall(path.read_text()) for name in found if name
    }
    assert len(named) > 60
    assert sorted(f"{path.relative_to(root)}: {name}" for path, name in named if not is_there(root, name)) == []


@pytest.mark.parametrize("name", ["bench.nowhere", "evaluator.gate.no_such_function", "nowhere.gate"])
def test_what_is_not_there_would_be_found(root: Path, name: str) -> None:
    assert is_there(root, "evaluator.gate.decide")
    assert not is_there(root, name)

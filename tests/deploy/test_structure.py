"""The ceilings of the code: lines of a file and of a function, parameters of a function, modules of a room."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("policies", "gateway", "trainer", "evaluator", "bench")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_MODULES = 12
CROWDED = ("policies/contract", "evaluator/judges")
"""Rooms of many small modules that say one kind of thing: records, and what a judge is made of."""


def sources(root: Path) -> list[Path]:
    return [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length of each function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield f"{path}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1 - docstring_lines(node)


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None or first.end_lineno is None:
        return 0
    return first.end_lineno - first.lineno + 1


def test_no_file_is_longer_than_the_ceiling(root: Path) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(root)}
    assert len(lengths) > 100
    assert {path: length for path, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_the_ceiling(root: Path) -> None:
    lengths = dict(function for path in sources(root) for function in functions(path))
    assert len(lengths) > 400
    assert {name: length for name, length in lengths.items() if length > MAX_FUNCTION_LINES} == {}


def test_packages_hold_no_code_of_their_own(root: Path) -> None:
    inits = [path for path in sources(root) if path.name == "__init__.py"]
    assert len(inits) > 10
    assert [path for path in inits if path.read_text().strip()] == []


def test_no_room_holds_more_modules_than_the_ceiling(root: Path) -> None:
    rooms = Counter(path.parent.relative_to(root).as_posix() for path in sources(root) if path.name != "__init__.py")
    assert len(rooms) > 40
    assert {room: n for room, n in rooms.items() if n > MAX_MODULES and room not in CROWDED} == {}

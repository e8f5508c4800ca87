"""The ceilings of the code: lines of a file and of a function, modules of a room; and reasons where a check is put off.

Parameters of a function and its branches are counted by ruff.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("policies", "gateway", "trainer", "evaluator", "bench")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
MAX_MODULES = 12
CROWDED = ("policies/contract", "evaluator/judges", "evaluator/probes", "gateway/migrations/versions")
"""Rooms of many small modules that say one kind of thing: records, what a judge is made of, a probe each."""

PUT_OFF = re.compile(r"# (ruff: )?(noqa|type: ignore)")
WITH_REASON = re.compile(r"# ((ruff: )?noqa: [A-Z0-9, ]+|type: ignore\[[a-z-]+(, [a-z-]+)*\])  # \S+")


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


def comments(path: Path) -> Iterator[str]:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    return (token.string for token in tokens if token.type == tokenize.COMMENT)


def test_a_check_is_put_off_for_a_reason_that_stands_beside_it(root: Path) -> None:
    paths = [*sources(root), *(path for room in ("tests", "scripts") for path in sorted((root / room).rglob("*.py")))]
    found = [(path, comment) for path in paths for comment in comments(path) if PUT_OFF.match(comment)]
    assert len(found) > 20
    assert [(path, comment) for path, comment in found if not WITH_REASON.match(comment)] == []


def test_a_module_that_gives_up_on_a_type_says_why(root: Path) -> None:
    """`Any: reason` in a comment; it stands at the first of the places that it holds for."""
    users = [
        path for path in sources(root) if re.search(r"^from typing import .*\bAny\b", path.read_text(), re.MULTILINE)
    ]
    assert len(users) > 20
    assert [path for path in users if not any("Any: " in comment for comment in comments(path))] == []

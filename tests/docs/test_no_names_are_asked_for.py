"""What docs/extending.md promises: nothing but a defense or a probe itself asks which one it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from policies.contract.defenses import DefenseSettings
from policies.contract.suite import PROBE_SETTINGS

ROOT = Path(__file__).parents[2]
SETTINGS = (*get_args(get_args(DefenseSettings)[0]), *PROBE_SETTINGS)
CLASSES = {kind.__name__ for kind in SETTINGS}
NAMES = {
    kind.model_fields[field].default for kind in SETTINGS for field in ("name", "probe") if field in kind.model_fields
}
AT_HOME = ("trainer/defenses/", "evaluator/probes/")


def questions(tree: ast.AST) -> Iterator[str]:
    """Comparisons with the name of a defense or probe, and `isinstance` of its settings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            compared = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            if compared & NAMES:
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
            if asked & CLASSES:
                yield ast.unparse(node)


def test_no_module_asks_which_defense_or_probe_it_has() -> None:
    sources = [
        path for package in ("policies", "gateway", "trainer", "evaluator") for path in (ROOT / package).rglob("*.py")
    ]
    elsewhere = {path.relative_to(ROOT).as_posix(): path for path in sources}
    elsewhere = {name: path for name, path in elsewhere.items() if not name.startswith(AT_HOME)}
    assert len(elsewhere) > 200
    assert len(NAMES) == len(CLASSES) == 21
    found = [f"{name}: {asked}" for name, path in elsewhere.items() for asked in questions(ast.parse(path.read_text()))]
    assert found == []

"""One function gives an adapter its name: nothing else in the gateway writes `fine_tuned_model`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gateway


def test_nothing_else_in_the_gateway_writes_the_name() -> None:
    """Assignments, keyword arguments, `setattr` and dictionary keys of that name, outside schemas that show it."""
    root = Path(gateway.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) >= 40
    writers = [path.relative_to(root).as_posix() for path in files if writes_the_name(ast.parse(path.read_text()))]
    assert writers == ["models/service.py"]


def writes_the_name(tree: ast.Module) -> bool:
    name = "fine_tuned_model"
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=attribute, ctx=ast.Store() | ast.Del()) if attribute == name:
                return True
            case ast.Call(func=ast.Name(id="Job" | "setattr" | "update") | ast.Attribute(attr="values" | "update")):
                texts = {inner.value for inner in ast.walk(node) if isinstance(inner, ast.Constant)}
                if name in texts or any(keyword.arg == name for keyword in node.keywords):
                    return True
    return False


@pytest.mark.parametrize(
    "source",
    [
        "job.fine_tuned_model = 'x'",
        "job.fine_tuned_model: str = 'x'",
        "job.fine_tuned_model += 'x'",
        "Job(fine_tuned_model='x')",
        "setattr(job, 'fine_tuned_model', 'x')",
        "update(Job).values(fine_tuned_model='x')",
        "update(Job).values({'fine_tuned_model': 'x'})",
        "a, job.fine_tuned_model = 1, 'x'",
    ],
)
def test_the_scan_sees_every_way_to_write(source: str) -> None:
    assert writes_the_name(ast.parse(source))


def test_the_scan_lets_reading_through() -> None:
    assert not writes_the_name(ast.parse("JobResponse(fine_tuned_model=job.fine_tuned_model)"))

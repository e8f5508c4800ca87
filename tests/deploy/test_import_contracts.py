"""The direction of imports is held: the tree as it is passes, a planted violation is caught by name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("policies", "gateway", "trainer", "evaluator", "bench")
PROGRAM = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"


@pytest.fixture
def tree(root: Path, tmp_path: Path) -> Path:
    """A copy of the packages' source and of the contracts."""
    for package in PACKAGES:
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.jsonl"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tree, env=environment, capture_output=True, text=True, timeout=300
    )


def plant(file: Path, statement: str) -> None:
    file.write_text(f"{file.read_text()}\n\n{statement}\n")


def test_the_tree_as_it_is_keeps_every_contract(tree: Path) -> None:
    run = lint(tree)
    assert run.returncode == 0, run.stdout
    assert "12 kept, 0 broken" in run.stdout


@pytest.mark.parametrize(
    ("file", "statement", "contract"),
    [
        ("gateway/tenants/keys.py", "import torch", "no torch in the gateway"),
        (
            "gateway/tenants/keys.py",
            "import evaluator.models.loading",
            "the gateway imports only the gate of the evaluator",
        ),
        ("evaluator/gate.py", "import trainer.lora", "the evaluator imports neither trainer nor gateway"),
        ("trainer/lora.py", "import gateway.tenants.keys", "the trainer does not import the gateway"),
        ("policies/errors.py", "import gateway.tenants.keys", "policies imports nothing of ours"),
        (
            "trainer/defenses/kl_penalty.py",
            "import trainer.defenses.safe_data_interleaving.defense",
            "no defense imports another",
        ),
        ("evaluator/probes/toxicity.py", "import evaluator.probes.coherence", "no probe imports another"),
        ("policies/contract/suite.py", "import policies.documents.schema", "layers of the policies"),
        ("gateway/files/service.py", "import gateway.jobs.states", "layers of the gateway"),
        ("trainer/losses/kl_divergence.py", "import trainer.loop.packing", "layers of the trainer"),
        ("evaluator/statistics/intervals.py", "import evaluator.probes.toxicity", "layers of the evaluator"),
        ("bench/defenses/records.py", "import bench.preference.records", "layers of the benches"),
    ],
)
def test_a_planted_import_breaks_its_contract(tree: Path, file: str, statement: str, contract: str) -> None:
    plant(tree / file, statement)
    run = lint(tree)
    assert run.returncode == 1
    assert contract in run.stdout.partition("Broken contracts")[2]


def test_a_room_that_no_layer_names_breaks_the_contract(tree: Path) -> None:
    (tree / "gateway" / "annex.py").touch()
    run = lint(tree)
    assert run.returncode != 0
    assert "gateway.annex" in run.stdout + run.stderr

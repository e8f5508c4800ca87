"""The gateway lives where no machine-learning library is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "peft", "trl", "safetensors", "scipy"}:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, Absent())

import gateway.cli, gateway.tasks
from gateway.app import create_app
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from starlette.testclient import TestClient

settings = GatewaySettings()
upgrade(settings.database_url)
with TestClient(create_app(settings)) as client:
    for path in ("/healthz", "/readyz"):
        print("answer", path, client.get(path).json()["status"])
"""


def test_the_gateway_starts_and_answers_without_torch(root: Path, tmp_path: Path) -> None:
    environment = {
        "PYTHONPATH": str(root),
        "TUNEGATE_DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db",
        "TUNEGATE_STORE_URL": f"file://{tmp_path}/store",
        "TUNEGATE_WORKER_TOKEN": "w" * 40,
    }
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    answers = [line for line in run.stdout.splitlines() if line.startswith("answer")]
    assert answers == ["answer /healthz ok", "answer /readyz ready"]

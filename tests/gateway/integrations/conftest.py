"""A gateway on SQLite: what an export writes does not depend on the database that was read."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.contract.metrics_export import MetricPoint, MetricsRun
from tests.gateway.databases import SqliteDatabases
from tests.gateway.integrations.trackers import READERS, Reader
from tests.gateway.job_fixtures import job_id, worker

__all__ = ["job_id", "worker"]

WHY = "`make test` runs this folder a second time with the package"


@pytest.fixture
def databases(tmp_path: Path) -> SqliteDatabases:
    return SqliteDatabases(tmp_path)


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "TUNEGATE_CACHE_DIR", "WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)  # where MLflow and TensorBoard write if nobody says where


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An MLflow database without runs: it takes MLflow ten seconds to make one."""
    from mlflow.tracking import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path.read_bytes()


@pytest.fixture(params=READERS)
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Each tracker by its real client, and what reads back what was written."""
    for package in READERS[request.param].packages:
        pytest.importorskip(package, reason=WHY)
    reader = READERS[request.param](tmp_path / request.param)
    if request.param == "mlflow":
        reader.place.write_bytes(request.getfixturevalue("empty_mlflow"))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{reader.place}")
    return reader


@pytest.fixture
def running() -> MetricsRun:
    """Three steps: losses 2, 1 and 2/3."""
    points = tuple(
        MetricPoint(step=step, at=1_790_000_000 + step, values={"train_loss": 2 / step, "valid_loss": 3 / step})
        for step in (1, 2, 3)
    )
    config: dict[str, str | int | float] = {"base_model": "smol", "n_epochs": 3, "learning_rate_multiplier": 0.5}
    return MetricsRun(
        job_id="ftjob-a1",
        state="running",
        started_at=1_790_000_000,
        ended_at=None,
        config=config,
        points=points,
        evaluation={},
        verdict={"status": "running"},
    )


@pytest.fixture
def ended(running: MetricsRun) -> MetricsRun:
    """The same job two steps later, rejected."""
    more = tuple(MetricPoint(step=step, at=1_790_000_000 + step, values={"train_loss": 2 / step}) for step in (4, 5))
    changes = {
        "state": "failed",
        "ended_at": 1_790_000_100,
        "points": running.points + more,
        "evaluation": {"toxicity.rate": 0.25, "toxicity.rate.base": 0.125},
        "verdict": {"status": "failed", "decision": "reject"},
    }
    return running.model_copy(update=changes)

"""The process that exports for operators: a tracker that hangs, refuses or crashes costs its own time limit alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import ExportFailed
from gateway.integrations.isolated import export_in_child
from policies.contract.metrics_export import Destination, ExportOrder, MetricsRun
from tests.gateway.integrations.trackers import CsvReader

KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Somebody listens and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_what_is_ordered_is_written(tmp_path: Path, ended: MetricsRun) -> None:
    places = tuple(Destination(place=str(tmp_path / name)) for name in ("a", "b"))
    export_in_child(ExportOrder(sink="csv", run=ended, destinations=places), {}, seconds=60)
    assert CsvReader(tmp_path / "a").read("ftjob-a1") == CsvReader(tmp_path / "b").read("ftjob-a1")


def test_a_tracker_that_hangs_is_given_up(silent_port: int, ended: MetricsRun) -> None:
    pytest.importorskip("mlflow")
    destination = Destination(place=f"http://127.0.0.1:{silent_port}")
    with pytest.raises(ExportFailed) as error:
        export_in_child(ExportOrder(sink="mlflow", run=ended, destinations=(destination,)), {}, seconds=8)
    assert error.value.code == "export_timed_out"


def test_a_wandb_server_that_hangs_is_given_up(
    silent_port: int, ended: MetricsRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    destination = Destination(place=f"http://127.0.0.1:{silent_port}")
    with pytest.raises(ExportFailed) as error:
        export_in_child(
            ExportOrder(sink="wandb", run=ended, destinations=(destination,)), {"WANDB_API_KEY": KEY}, seconds=8
        )
    assert error.value.code == "export_timed_out"


def test_an_error_is_told_without_the_key(ended: MetricsRun, tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("a file, where a folder should be")
    destination = Destination(place=str(tmp_path / KEY))
    with pytest.raises(ExportFailed, match="csv did not take the run") as error:
        export_in_child(
            ExportOrder(sink="csv", run=ended, destinations=(destination,)), {"WANDB_API_KEY": KEY}, seconds=60
        )
    assert KEY not in str(error.value)


def test_the_process_is_given_no_setting_of_the_gateway(
    ended: MetricsRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment is written down by a module that Python imports at every start."""
    (tmp_path / "sitecustomize.py").write_text(
        f"import os, pathlib\npathlib.Path({str(tmp_path / 'seen')!r}).write_text(repr(dict(os.environ)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TUNEGATE_DATABASE_URL", "postgresql://secret")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "passed-on")
    order = ExportOrder(sink="csv", run=ended, destinations=(Destination(place=str(tmp_path)),))
    export_in_child(order, {"WANDB_API_KEY": KEY}, seconds=60)
    seen = (tmp_path / "seen").read_text()
    assert "postgresql" not in seen
    assert KEY in seen
    assert "passed-on" in seen

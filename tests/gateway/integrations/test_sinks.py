"""Each tracker's real client: what is written is read back, once each, however often it is exported."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import ExportFailed
from gateway.integrations.sink import opened
from policies.contract.metrics_export import Destination, MetricsRun
from policies.errors import ConfigurationError
from tests.gateway.integrations.trackers import PROJECT, Reader, WandbReader

pytestmark = [
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),  # of MLflow's tables
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def write(reader: Reader, *runs: MetricsRun) -> str:
    """In one export that goes on, as `--follow` does."""
    destination = Destination(project=PROJECT, place=reader.destination)
    with opened(reader.name, runs[0], destination) as write_run:
        return [write_run(run) for run in runs][-1]


def require_all(reader: Reader, run: MetricsRun) -> None:
    found = reader.read(run.job_id)
    wanted = {
        name: {point.step: point.values[name] for point in run.points if name in point.values}
        for name in {name for point in run.points for name in point.values}
    }
    assert found.series.keys() == wanted.keys()
    for name, figures in wanted.items():
        assert found.series[name] == pytest.approx(figures, rel=reader.digits, abs=0)
    assert found.evaluation == pytest.approx(run.evaluation, rel=reader.digits, abs=0)
    assert found.verdict == run.verdict
    assert found.config == {name: str(value) for name, value in run.config.items()}


def test_everything_is_there_after_one_export(tracker: Reader, ended: MetricsRun) -> None:
    write(tracker, ended)
    require_all(tracker, ended)


def test_a_second_export_repeats_nothing(tracker: Reader, ended: MetricsRun) -> None:
    for _ in range(3):
        write(tracker, ended)
    require_all(tracker, ended)


def test_an_export_goes_on_where_an_earlier_one_stopped(
    tracker: Reader, running: MetricsRun, ended: MetricsRun
) -> None:
    write(tracker, running)
    write(tracker, ended)
    require_all(tracker, ended)


def test_an_export_follows_the_job(tracker: Reader, running: MetricsRun, ended: MetricsRun) -> None:
    write(tracker, running.model_copy(update={"points": running.points[:1]}), running, running, ended)
    require_all(tracker, ended)


def test_a_second_process_is_told_that_the_first_is_at_it(tracker: Reader, ended: MetricsRun) -> None:
    destination = Destination(project=PROJECT, place=tracker.destination)
    with opened(tracker.name, ended, destination) as write_run:
        with pytest.raises(ExportFailed, match="Another process exports ftjob-a1") as error:
            write(tracker, ended)
        write_run(ended)
    assert error.value.code == "export_under_way"
    require_all(tracker, ended)


def test_names_of_another_kind_stay_names(tracker: Reader, ended: MetricsRun) -> None:
    """No quote, path, template or formula of a tenant's is anything but text in a tracker."""
    odd = "=cmd|' /C calc'!A0 `$(id)` {{7*7}} '; DROP TABLE runs; -- ../../etc é"
    destination = Destination(project=PROJECT, name=odd, tags=(odd[:60], "second"), place=tracker.destination)
    with opened(tracker.name, ended, destination) as write_run:
        write_run(ended)
    found = tracker.read(ended.job_id)
    assert found.series.keys() == {"train_loss", "valid_loss"}


def test_a_job_that_was_never_one_is_refused_before_it_names_a_file(ended: MetricsRun) -> None:
    for name in ("../../etc/passwd", "ftjob-a/../b", "ftjob-' OR '1'='1", "ftjob-a\n"):
        with pytest.raises(ValueError, match="job_id"):
            MetricsRun.model_validate(ended.model_dump() | {"job_id": name})


def test_a_missing_client_library_is_named(ended: MetricsRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """None: `import` fails as if it were not installed."""
    monkeypatch.delitem(sys.modules, "gateway.integrations.wandb_sink", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with (
        pytest.raises(ConfigurationError, match=r"pip install 'tunegate\[wandb\]'"),
        opened("wandb", ended, Destination()),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path, ended: MetricsRun) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ExportFailed, match="csv did not take the run"),
        opened("csv", ended, Destination(place=str(tmp_path / "file"))) as write_run,
    ):
        write_run(ended)


@pytest.fixture
def refusing_port() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_an_mlflow_server_that_refuses_is_an_error(
    refusing_port: int, ended: MetricsRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(ExportFailed, match="mlflow did not take the run"),
        opened("mlflow", ended, Destination(place=f"http://127.0.0.1:{refusing_port}")),
    ):
        pass


def test_wandb_is_told_nothing_of_this_machine(tmp_path: Path, ended: MetricsRun) -> None:
    pytest.importorskip("wandb")
    write(WandbReader(tmp_path / "wandb"), ended)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-ftjob-a1.wandb")
    content = path.read_bytes()
    for word in (socket.gethostname().encode() * 2, str(tmp_path).encode(), os.getcwd().encode(), b"requirements.txt"):
        assert word not in content
    assert not list(path.parent.rglob("requirements.txt"))
    assert not list(path.parent.rglob("wandb-metadata.json"))


def test_wandb_keeps_folders_that_were_sent_already(tmp_path: Path, ended: MetricsRun) -> None:
    pytest.importorskip("wandb")
    reader = WandbReader(tmp_path / "wandb")
    write(reader, ended)
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-ftjob-a1.wandb")
    path.with_suffix(".wandb.synced").write_text("")
    other = tmp_path / "wandb" / "offline-run-20200101_000000-ftjob-a12"
    other.mkdir()
    write(reader, ended)
    write(reader, ended)
    assert path.exists()
    assert other.exists()
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-ftjob-a1.wandb"))) == 2

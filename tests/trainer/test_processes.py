"""Two processes over gloo against one with accumulation, and what becomes of them when one fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

from policies.contract.artifacts import ArtifactStore
from policies.contract.defenses import KlPenalty, Ldifs
from policies.contract.jobs import Hyperparameters, JobSpec
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Outcome
from trainer.processes import process_count

from .attempts import Attempt
from .conftest import chat_lines

MakeSpec = Callable[..., JobSpec]


def test_as_many_processes_as_divide_a_batch() -> None:
    assert [process_count(batch, at_most=4) for batch in (1, 2, 6, 8, 9)] == [1, 2, 3, 4, 3]


def test_two_processes_train_as_one_with_accumulation_does(make_spec: MakeSpec, tmp_path: Path) -> None:
    """16 rows in batches of 4: two processes have 2 rows each of what one process has 4 of; up to rounding the losses,
    the figures of the penalties and the adapters are the same."""
    store = ArtifactStore(f"file://{tmp_path}/store")
    spec = make_spec(
        KlPenalty(coefficient=1.0),
        Ldifs(layers=(1, 2)),
        training_file=store.put_bytes(chat_lines(16).encode()),
        base_learning_rate=1e-3,
    )
    records, weights = [], []
    for processes in (1, 2):
        attempt = Attempt(tmp_path / f"of-{processes}", spec, processes=processes)
        events = list(attempt.events())
        completion = attempt.completion()
        assert completion.outcome is Outcome.SUCCEEDED, completion
        assert completion.record is not None
        records.append(store.get_record(completion.record, TrainingRecord))
        weights.append(load_file(attempt.folder / "adapter" / "adapter_model.safetensors"))
        assert len([event for event in events if event.type == "metrics"]) == 8
    alone, together = records
    assert alone.total_steps == together.total_steps == 8
    for name in ("loss", "kl", "feature_distance"):
        for left, right in zip(alone.log_history, together.log_history, strict=True):
            assert right[name] == pytest.approx(left[name], rel=0.02, abs=1e-5), (name, left["step"])
    for name, weight in weights[0].items():
        assert (weight - weights[1][name]).abs().max() < 2e-3


def test_a_follower_that_dies_takes_the_run_along(make_spec: MakeSpec, tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store")
    spec = make_spec(
        training_file=store.put_bytes(chat_lines(40).encode()),
        hyperparameters=Hyperparameters(n_epochs=50, batch_size=4),
    )
    attempt = Attempt(tmp_path / "run", spec, processes=2)
    next(event for event in attempt.events() if event.type == "metrics")
    (follower,) = psutil.Process(attempt.process.pid).children()
    os.kill(follower.pid, signal.SIGKILL)
    assert attempt.process.wait(timeout=60) != 0
    assert not (attempt.folder / "completion.json").exists()
    assert attempt.process.stdout is not None
    attempt.process.stdout.close()


def test_processes_that_are_told_to_stop_stop_at_the_same_step(make_spec: MakeSpec, tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store")
    spec = make_spec(
        training_file=store.put_bytes(chat_lines(40).encode()),
        hyperparameters=Hyperparameters(n_epochs=50, batch_size=4),
    )
    attempt = Attempt(tmp_path / "run", spec, processes=2)
    events = attempt.events()
    next(event for event in events if event.type == "metrics")
    attempt.process.send_signal(signal.SIGTERM)
    kept = [event.checkpoint for event in events if event.checkpoint is not None]
    assert attempt.completion().outcome is Outcome.YIELDED
    assert kept

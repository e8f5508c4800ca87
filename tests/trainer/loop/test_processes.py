"""Two processes over gloo against one with accumulation, and what becomes of them when one fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from policies.contract.defenses import KlPenalty, Ldifs, TokenConstrainedSft
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import Dpo, JobSpec, Supervised
from policies.contract.store import ArtifactStore
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Outcome
from policies.errors import IntegrityError
from tests.trainer.attempts import Attempt
from tests.trainer.conftest import Run, chat_lines, preference_lines
from tests.trainer.training_logs import ROUNDING, require_equal_logs
from trainer.loop.processes import process_count

MakeSpec = Callable[..., JobSpec]


def test_as_many_processes_as_divide_a_batch() -> None:
    assert [process_count(batch, at_most=4) for batch in (1, 2, 6, 8, 9)] == [1, 2, 3, 4, 3]


def test_processes_that_do_not_divide_a_batch_are_refused(
    make_spec: MakeSpec, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were counted from the file's lines, and the batch is made of its rows: 3 processes can't share 4."""
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(IntegrityError, match="3 processes can't share batches of 4 rows"):
        run.train(make_spec())


@pytest.mark.parametrize("method", [Supervised(), Dpo()], ids=lambda method: method.type)
def test_two_processes_train_as_one_with_accumulation_does(
    method: Supervised | Dpo, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """128 rows in batches of 64: one process accumulates 4 micro-batches of 16 rows, two processes 2 each. Up to
    rounding the logs are the same, and so is the evidence; the norm of a gradient is the first micro-batch's alone."""
    store = ArtifactStore(f"file://{tmp_path}/store")
    lines, constrained = (preference_lines, ()) if isinstance(method, Dpo) else (chat_lines, (TokenConstrainedSft(),))
    spec = make_spec(
        KlPenalty(coefficient=20.0),
        Ldifs(coefficient=20.0, layers=(1, 2)),
        *constrained,
        method=method,
        training_file=store.put_bytes(lines(128).encode()),
        hyperparameters=Hyperparameters(n_epochs=2, batch_size=64),
    )
    records = []
    for processes in (1, 2):
        attempt = Attempt(tmp_path / f"of-{processes}", spec, processes=processes)
        events = list(attempt.events())
        completion = attempt.completion()
        assert completion.outcome is Outcome.SUCCEEDED, completion
        assert completion.record is not None
        records.append(store.get_record(completion.record, TrainingRecord))
        assert len([event for event in events if event.type == "metrics"]) == 4
    alone, together = records
    assert alone.total_steps == together.total_steps == 4
    require_equal_logs(alone, together, {"loss", "kl", "feature_distance", *(["token_weight"] if constrained else [])})
    for left, right in zip(alone.evidence, together.evidence, strict=True):
        for name in left.figures.keys() - {"first_gradient_norm"}:
            assert right.figures[name] == pytest.approx(left.figures[name], rel=ROUNDING), (left.name, name)


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

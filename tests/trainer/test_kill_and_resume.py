"""A training child that is killed without notice; the next one gives the adapter of a run that nothing disturbed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec, LoraSettings
from policies.contract.store import ArtifactStore
from policies.contract.training import CheckpointRecord, TrainingRecord
from policies.contract.worker_api import Outcome
from tests.trainer.attempts import Attempt
from tests.trainer.conftest import Run
from tests.trainer.matrix import ALL, SETS, VARIANTS, Make

MakeSpec = Callable[..., JobSpec]


@pytest.fixture
def start() -> Iterator[Callable[..., Attempt]]:
    """Starts attempts, and ends those that a failed test leaves behind."""
    started: list[Attempt] = []

    def begin(folder: Path, spec: JobSpec, **options: Any) -> Attempt:  # Any: the attempt's own
        started.append(Attempt(folder, spec, **options))
        return started[-1]

    yield begin
    for attempt in started:
        with attempt.process as process:
            process.kill()


def killed(attempt: Attempt) -> CheckpointRecord:
    """Kill a child, and its followers with it, as it begins to save its second checkpoint; the steps since are lost."""
    attempt.wait_until_halted()
    family = psutil.Process(attempt.process.pid).children()
    attempt.process.kill()
    assert attempt.process.wait() == -signal.SIGKILL
    assert not psutil.wait_procs(family, timeout=120)[1], "a follower outlived its leader"
    assert not (attempt.folder / "completion.json").exists()
    events = list(attempt.events())
    (kept,) = [event.checkpoint for event in events if event.checkpoint is not None]
    assert max(step for event in events if isinstance(step := event.data.get("step"), int)) > kept.step
    return kept


def record_of(attempt: Attempt, store: ArtifactStore) -> TrainingRecord:
    completion = attempt.completion()
    assert completion.outcome is Outcome.SUCCEEDED, completion
    assert completion.record is not None
    return store.get_record(completion.record, TrainingRecord)


SCORED_ONCE = [VARIANTS["kl_penalty sampled"], ALL["token_constrained_sft"], ALL["ldifs"]]


@pytest.mark.parametrize(
    ("defenses", "processes"), [(SETS["all"], 1), (SCORED_ONCE, 2)], ids=["all defenses", "in two processes"]
)
def test_the_adapter_is_that_of_an_uninterrupted_run_bit_for_bit(
    defenses: list[Make],
    processes: int,
    make_spec: MakeSpec,
    tiny_base: Path,
    tmp_path: Path,
    start: Callable[..., Attempt],
) -> None:
    """With dropout, so that the random states count, those of followers as well."""
    shared = Run(tmp_path, n_rows=20)
    spec = make_spec(
        *[make(shared, tiny_base) for make in defenses],
        lora=LoraSettings(rank=4, alpha=8, dropout=0.2),
        training_file=shared.store.put_file(tmp_path / "train.jsonl"),
        hyperparameters=Hyperparameters(n_epochs=3, batch_size=4),
    )
    whole = start(tmp_path / "whole", spec, processes=processes)
    checkpoint = killed(start(tmp_path / "killed", spec, processes=processes, halts=True))
    states = {name for name in shared.store.tree(checkpoint.state).files if name.startswith("random_state_")}
    assert states == {f"random_state_{process}.json" for process in range(processes)}
    resumed = start(tmp_path / "resumed", spec, resume_from=checkpoint, processes=processes)
    expected, found = record_of(whole, shared.store), record_of(resumed, shared.store)
    assert found.resumed_from_steps == (checkpoint.step,)
    assert checkpoint.step < found.total_steps
    assert found.adapter == expected.adapter
    assert [item.figures for item in found.evidence] == [item.figures for item in expected.evidence]

"""Training children under a watch on every pickle that is read: from the start, resumed, in processes, preferences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import Dpo, JobSpec
from policies.contract.worker_api import Outcome
from tests.trainer.attempts import ENVIRONMENT, Attempt
from tests.trainer.conftest import Run, preference_lines
from tests.trainer.matrix import SETS
from tests.unpickled import Unpickled

MakeSpec = Callable[..., JobSpec]


def test_training_and_resuming_read_no_pickle(make_spec: MakeSpec, tiny_base: Path, tmp_path: Path) -> None:
    """With every defense, in two processes; resumed in one from the first checkpoint."""
    shared, unpickled = Run(tmp_path, n_rows=12), Unpickled(tmp_path)
    spec = make_spec(
        *[make(shared, tiny_base) for make in SETS["all"]],
        training_file=shared.store.put_file(tmp_path / "train.jsonl"),
        hyperparameters=Hyperparameters(n_epochs=1, batch_size=4),
        checkpoint_every_steps=1,
    )
    environment = ENVIRONMENT | unpickled.environment
    whole = Attempt(tmp_path / "whole", spec, processes=2, environment=environment)
    checkpoint = next(event.checkpoint for event in whole.events() if event.checkpoint)
    completion = whole.completion()
    assert completion.outcome is Outcome.SUCCEEDED, completion
    resumed = Attempt(tmp_path / "resumed", spec, checkpoint, environment=environment).completion()
    assert resumed.outcome is Outcome.SUCCEEDED, resumed
    assert unpickled.noted() == []


def test_preferences_are_learnt_without_reading_a_pickle(make_spec: MakeSpec, tmp_path: Path) -> None:
    shared, unpickled = Run(tmp_path), Unpickled(tmp_path)
    spec = make_spec(
        method=Dpo(),
        training_file=shared.store.put_bytes(preference_lines(8).encode()),
    )
    done = Attempt(tmp_path / "whole", spec, environment=ENVIRONMENT | unpickled.environment).completion()
    assert done.outcome is Outcome.SUCCEEDED, done
    assert unpickled.noted() == []

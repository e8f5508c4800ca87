"""How often a run saves."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from policies.contract.training import CheckpointRecord
from trainer.loop.progress import MAX_CHECKPOINTS, Hooks, RunCallback


def never_called(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
    raise AssertionError(folder, step, epoch, metrics)


@pytest.mark.parametrize(("n_steps", "n_saved"), [(32, 31), (10_000, MAX_CHECKPOINTS - 1)])
def test_a_long_run_saves_more_seldom(tmp_path: Path, n_steps: int, n_saved: int) -> None:
    """However often its base model's document asks for it; the last step is that of the epoch."""
    hooks = Hooks(report=print, should_stop=lambda: False, keep_checkpoint=never_called)
    callback = RunCallback(hooks, tokens_per_step=1.0, checkpoint_every_steps=1)
    arguments = TrainingArguments(output_dir=str(tmp_path), num_train_epochs=1, report_to="none", use_cpu=True)
    saved = 0
    for step in range(1, n_steps + 1):
        state, control = TrainerState(global_step=step, max_steps=n_steps, epoch=step / n_steps), TrainerControl()
        callback.on_step_end(arguments, state, control)
        saved += control.should_save
    assert saved == n_saved

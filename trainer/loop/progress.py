"""What a run tells while it goes on, and how it is asked to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from policies.contract.training import CheckpointRecord
from policies.contract.worker_api import Progress, WorkerEvent

MAX_CHECKPOINTS = 64
"""Of a run, besides those of its epochs: a long run saves more seldom, so that it can't fill the store."""

KeepCheckpoint = Callable[[Path, int, float, dict[str, float]], CheckpointRecord]
"""Stores a checkpoint folder; gets its step, epoch and metrics."""


@dataclass(frozen=True)
class Hooks:
    """How a run speaks with whoever started it."""

    report: Callable[[WorkerEvent], None]
    should_stop: Callable[[], bool]
    """Asked once a step; True makes the run save a checkpoint and end."""
    keep_checkpoint: KeepCheckpoint | None = None
    """None: no checkpoints."""

    def tell(self, message: str) -> None:
        self.report(WorkerEvent(type="message", message=message))


class RunCallback(TrainerCallback):
    """Reports metrics, progress and checkpoints; ends the run at a step boundary when it is asked to."""

    def __init__(self, hooks: Hooks, *, tokens_per_step: float, checkpoint_every_steps: int) -> None:
        self._hooks = hooks
        self._tokens_per_step = tokens_per_step
        self._checkpoint_every_steps = checkpoint_every_steps
        self._started = time.monotonic()
        self.first_step = 0
        self._saved_step = self._validated_step = 0
        self.tokens_per_second = 0.0
        self._figures: dict[str, float] = {}
        self.was_stopped = False
        self.checkpoints: list[CheckpointRecord] = []

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # Any: the model and more
    ) -> None:
        self._started, self.first_step = time.monotonic(), state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The one place where a run stops on request, and where regular checkpoints are ordered."""
        control.should_log = True
        if self._hooks.should_stop() and state.global_step < state.max_steps:
            self.was_stopped = control.should_training_stop = True
        every = max(self._checkpoint_every_steps, math.ceil(state.max_steps / MAX_CHECKPOINTS))
        due = state.global_step % every == 0 and not _ends_epoch(state, args)
        control.should_evaluate = due and args.eval_strategy != "no"
        control.should_save = self._hooks.keep_checkpoint is not None and (due or self.was_stopped)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The checkpoint of an epoch comes after its validation, so that it has the figures."""
        control.should_save = self._hooks.keep_checkpoint is not None and self._saved_step != state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        figures = training_figures(logs or {})
        if not figures:
            return
        self._figures |= figures
        if "valid_loss" in figures:
            self._validated_step = state.global_step
        self._measure_speed(state.global_step)
        self._hooks.report(
            WorkerEvent(
                type="metrics",
                message=f"Step {state.global_step}/{state.max_steps}: "
                + ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in figures.items()),
                data={"step": state.global_step, "total_steps": state.max_steps, **figures},
                progress=self._progress(state),
            )
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._saved_step = state.global_step
        if self._hooks.keep_checkpoint is None or not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        told = ("train_", "valid_") if self._validated_step == state.global_step else ("train_",)
        metrics = {"step": float(state.global_step)} | {
            name: value for name, value in self._figures.items() if name.startswith(told)
        }
        record = self._hooks.keep_checkpoint(folder, state.global_step, float(state.epoch or 0.0), metrics)
        self.checkpoints.append(record)
        message = f"Checkpoint created at step {state.global_step}"
        self._hooks.report(WorkerEvent(type="checkpoint", message=message, checkpoint=record))

    def _measure_speed(self, step: int) -> None:
        seconds = time.monotonic() - self._started
        self.tokens_per_second = (step - self.first_step) * self._tokens_per_step / seconds if seconds > 0 else 0.0
        self._figures["tokens_per_second"] = self.tokens_per_second

    def _progress(self, state: TrainerState) -> Progress:
        done = state.global_step - self.first_step
        seconds_per_step = (time.monotonic() - self._started) / done if done else None
        return Progress(
            step=state.global_step,
            total_steps=state.max_steps,
            stage="training",
            eta_seconds=None if seconds_per_step is None else seconds_per_step * (state.max_steps - state.global_step),
            figures=dict(self._figures),
        )


def _ends_epoch(state: TrainerState, args: TrainingArguments) -> bool:
    return state.global_step % (state.max_steps // int(args.num_train_epochs)) == 0


NAMES = {
    "loss": "train_loss",
    "mean_token_accuracy": "train_mean_token_accuracy",
    "eval_loss": "valid_loss",
    "eval_mean_token_accuracy": "valid_mean_token_accuracy",
    "rewards/accuracies": "train_reward_accuracy",
    "rewards/margins": "train_reward_margin",
    "eval_rewards/accuracies": "valid_reward_accuracy",
    "eval_rewards/margins": "valid_reward_margin",
    "learning_rate": "learning_rate",
    "kl": "kl",
    "feature_distance": "feature_distance",
    "token_weight": "token_weight",
}
"""Figures of TRL's log that are told, and OpenAI's names for them. A reward is β times the log-ratio to the base."""


def training_figures(logs: dict[str, float]) -> dict[str, float]:
    """The finite figures of a log entry that are told, under the names of OpenAI's checkpoint metrics."""
    return {NAMES[name]: float(value) for name, value in logs.items() if name in NAMES and math.isfinite(float(value))}

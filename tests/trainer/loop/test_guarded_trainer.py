"""The hook points: what is inside the contexts, how often the reference runs, what stops a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
from trl.trainer.sft_config import SFTConfig

from evaluator.models.loading import load_tokenizer
from policies.contract.jobs import LoraSettings
from policies.contract.training import DefenseEvidence
from policies.errors import DefenseError, NonFiniteLossError
from trainer.data import TokenisedRow, to_dataset
from trainer.defense import Defense
from trainer.loop.guarded_trainer import GuardedSFTTrainer
from trainer.lora import attach_lora
from trainer.training_step import Penalty, TrainingStep

N_STEPS = 2


class Recording(Defense):
    """Writes down what happens to it; its penalty is 0, but runs the reference."""

    changes_forwards = True

    def __init__(self, name: str, log: list[str], *, penalty: float = 0.0) -> None:
        self.name = name
        self._log = log
        self._penalty = penalty

    @contextmanager
    def around_forward(self, model: PeftModel) -> Iterator[None]:
        self._log.append(f"{self.name} entered")
        try:
            yield
        finally:
            self._log.append(f"{self.name} left")

    def penalty(self, step: TrainingStep) -> Penalty:
        reference = step.model.shared_reference()
        assert not reference.requires_grad
        assert reference.shape == step.hidden.shape
        self._log.append(f"{self.name} penalty")
        step.hidden.register_hook(lambda _: self._log.append(f"{self.name} backward"))
        return Penalty(self._penalty * step.hidden.sum(), {})

    def evidence(self) -> DefenseEvidence:
        return DefenseEvidence(name=self.name, acted=True, figures={}, explanation="")


def trainer(tiny_base: Path, folder: Path, *defenses: Defense) -> GuardedSFTTrainer:
    row = TokenisedRow((1, 5, 6, 7, 2), (-100, -100, 6, 7, 2))
    return GuardedSFTTrainer(
        defenses=defenses,
        model=attach_lora(
            AutoModelForCausalLM.from_pretrained(tiny_base), LoraSettings(rank=4, alpha=8), seed=0, name="tiny"
        ),
        args=SFTConfig(
            output_dir=str(folder),
            per_device_train_batch_size=2,
            max_steps=N_STEPS,
            bf16=False,
            use_cpu=True,
            activation_checkpointing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=to_dataset([row] * 4),
        processing_class=load_tokenizer(tiny_base),
    )


def forwards_of(model: torch.nn.Module, log: list[str]) -> None:
    model.register_forward_hook(lambda *_: log.append("forward"))


def test_contexts_hold_policy_reference_and_backward_of_every_step(tiny_base: Path, tmp_path: Path) -> None:
    """Two defenses share one policy forward and one reference forward; contexts are left in reverse."""
    log: list[str] = []
    guarded = trainer(tiny_base, tmp_path, Recording("a", log), Recording("b", log))
    guarded.head()  # proves the output layer once, with forwards of its own
    forwards_of(guarded._base_model.base_model, log)
    guarded.train()
    step = ["a entered", "b entered", "forward", "forward", "a penalty", "b penalty", "a backward", "b backward"]
    assert log == [*step, "b left", "a left"] * N_STEPS


def test_without_a_defense_there_is_one_forward_a_step(tiny_base: Path, tmp_path: Path) -> None:
    log: list[str] = []
    guarded = trainer(tiny_base, tmp_path)
    forwards_of(guarded._base_model.base_model, log)
    guarded.train()
    assert log == ["forward"] * N_STEPS


def test_contexts_and_hooks_come_off_when_a_penalty_raises(tiny_base: Path, tmp_path: Path) -> None:
    class Failing(Recording):
        def penalty(self, step: TrainingStep) -> Penalty:
            raise DefenseError("cannot act")

    log: list[str] = []
    guarded = trainer(tiny_base, tmp_path, Failing("a", log), Recording("b", log))
    with pytest.raises(DefenseError, match="cannot act"):
        guarded.train()
    assert log == ["a entered", "b entered", "b left", "a left"]
    assert not guarded._base_model.base_model._forward_hooks


def test_a_penalty_that_is_not_finite_stops_the_run_at_once(tiny_base: Path, tmp_path: Path) -> None:
    guarded = trainer(tiny_base, tmp_path, Recording("a", [], penalty=float("nan")))
    with pytest.raises(NonFiniteLossError, match="at step 1"):
        guarded.train()
    assert guarded.state.global_step == 0


def test_a_validation_loss_that_is_not_finite_stops_the_run(tiny_base: Path, tmp_path: Path) -> None:
    guarded = trainer(tiny_base, tmp_path)
    with pytest.raises(NonFiniteLossError, match="eval_loss is nan"):
        guarded.log({"eval_loss": float("nan")})

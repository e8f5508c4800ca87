"""A step that fails in the middle leaves the model as it was, whatever the defenses had put on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from policies.contract.jobs import JobSpec
from tests.trainer.conftest import Run
from tests.trainer.guarded import prepared, randomise
from tests.trainer.matrix import SETS
from trainer.loop.guarded_trainer import GuardedSFTTrainer
from trainer.loop.observation import decoder_layers

MakeSpec = Callable[..., JobSpec]
ON_THE_MODEL = [
    "kl_penalty",
    "kl_penalty sampled",
    "kl_penalty on safe data",
    "ldifs",
    "preventative_steering",
    "token_constrained_sft",
    "all",
]
"""Defenses that hook the model or switch its adapter off in a step."""


class FaultError(Exception):
    """Raised by the tests alone."""


def n_hooks(model: nn.Module) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


class Fault:
    """Fails the last layer's forward with gradient or without, and says how many hooks were on then."""

    def __init__(self, trainer: GuardedSFTTrainer, *, with_gradient: bool) -> None:
        self.hooks_on = 0
        self._model = trainer.adapted_model
        self._with_gradient = with_gradient
        (last,) = decoder_layers(trainer._base_model, [2])
        assert isinstance(last.mlp, nn.Module)
        self._handle = last.mlp.register_forward_hook(self._fail)

    def _fail(self, *_: object) -> None:
        if torch.is_grad_enabled() == self._with_gradient:
            self._handle.remove()
            self.hooks_on = n_hooks(self._model)
            raise FaultError


@torch.no_grad()
def last_hidden(trainer: GuardedSFTTrainer) -> Tensor:
    trainer.adapted_model.eval()
    hidden: Tensor = trainer._base_model.base_model(torch.arange(9)[None], use_cache=False).last_hidden_state
    return hidden


def require_unchanged(trainer: GuardedSFTTrainer, n_before: int, hidden_before: Tensor) -> None:
    assert n_hooks(trainer.adapted_model) == n_before
    assert torch.equal(last_hidden(trainer), hidden_before), "a vector is still added, or the adapter is still off"


@pytest.mark.parametrize(
    ("name", "with_gradient"),
    [
        *((name, True) for name in ON_THE_MODEL),
        *((name, False) for name in ON_THE_MODEL if name != "preventative_steering"),
    ],
    ids=lambda value: value if isinstance(value, str) else "policy" if value else "reference",
)
def test_a_fault_in_a_forward(name: str, with_gradient: bool, make_spec: MakeSpec, tiny_base: Path, run: Run) -> None:
    """The policy's forward has gradients, the reference's none; steering asks for no reference."""
    trainer = prepared(run, make_spec(*[make(run, tiny_base) for make in SETS[name]]))
    randomise(trainer.adapted_model)
    n_before, hidden_before = n_hooks(trainer.adapted_model), last_hidden(trainer)
    fault = Fault(trainer, with_gradient=with_gradient)
    with pytest.raises(FaultError):
        trainer.train()
    assert fault.hooks_on > n_before
    require_unchanged(trainer, n_before, hidden_before)


@pytest.mark.parametrize("name", ["preventative_steering", "all"])
def test_a_fault_in_the_backward(name: str, make_spec: MakeSpec, tiny_base: Path, run: Run) -> None:
    """Steering alone is on then; checkpointing runs the policy's forward there again."""
    trainer = prepared(run, make_spec(*[make(run, tiny_base) for make in SETS[name]]))
    randomise(trainer.adapted_model)
    n_before, hidden_before = n_hooks(trainer.adapted_model), last_hidden(trainer)

    def fail(_: Tensor) -> None:
        raise FaultError

    trainer._adapter[0].register_hook(fail)
    with pytest.raises(FaultError):
        trainer.train()
    require_unchanged(trainer, n_before, hidden_before)

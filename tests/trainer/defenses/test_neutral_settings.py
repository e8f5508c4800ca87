"""Neutral settings of every defense: they train the undefended adapter bit for bit, or can't be written."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from policies.contract.defenses import (
    DEFENSE_NAMES,
    DefenseSettings,
    EarlyStoppingOnSafety,
    Inoculation,
    KlPenalty,
    Ldifs,
    PreventativeSteering,
    SafeDataInterleaving,
    SafeLora,
    TokenConstrainedSft,
)
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec
from policies.contract.training import CheckpointRecord
from policies.errors import DefenseError
from tests.trainer.conftest import NOTHING, Run
from tests.trainer.guarded import prepared, randomise
from tests.trainer.matrix import Make, steering
from trainer.loop.progress import Hooks

MakeSpec = Callable[..., JobSpec]
ONCE = Hyperparameters(n_epochs=1, batch_size=4)
LEAST = math.nextafter(0, 1)
"""The least number that a setting over 0 can be. It is 0 in float32, so the mechanism runs and adds nothing."""

IDLE: dict[str, Make] = {
    "kl_penalty": lambda *_: KlPenalty(coefficient=LEAST),
    "kl_penalty forward on completions": lambda *_: KlPenalty(
        coefficient=LEAST, direction="forward", tokens="completion"
    ),
    "kl_penalty sampled": lambda *_: KlPenalty(coefficient=LEAST, estimator="sampled", tokens="completion"),
    "kl_penalty on safe data": lambda *_: KlPenalty(coefficient=LEAST, on="safe_data", safe_rows=2),
    "ldifs": lambda *_: Ldifs(coefficient=LEAST, layers=(1, 2)),
    "preventative_steering": lambda run, base: steering(run, base).model_copy(update={"coefficient": LEAST}),
    "token_constrained_sft": lambda *_: TokenConstrainedSft(first_token_beta=LEAST, early_beta=LEAST, beta=LEAST),
    "safe_lora": lambda *_: SafeLora(threshold=0),
}
"""Settings under which a defense does nothing, which fails the run in the end."""
MEASURING: dict[str, Make] = {"early_stopping_on_safety": lambda *_: EarlyStoppingOnSafety(max_drop=100)}
REFUSED: dict[str, Callable[[], DefenseSettings]] = {
    "kl_penalty": lambda: KlPenalty(coefficient=0),
    "ldifs": lambda: Ldifs(coefficient=0),
    "preventative_steering": lambda: PreventativeSteering(coefficient=0),
    "safe_data_interleaving": lambda: SafeDataInterleaving(ratio=0),
    "inoculation": lambda: Inoculation(system_prompt=" "),
    "token_constrained_sft": lambda: TokenConstrainedSft(beta=0),
    "safe_lora": lambda: SafeLora(mode="top_k", top_k=0),
}
"""A policy that wants no defense leaves it out."""


def trained(run: Run, spec: JobSpec) -> dict[str, Tensor]:
    """The adapter of the last checkpoint, which is there also where the run fails afterwards."""
    kept: dict[int, dict[str, Tensor]] = {}

    def keep(folder: Path, step: int, epoch: float, metrics: dict[str, float]) -> CheckpointRecord:
        kept[step] = load_file(folder / "adapter_model.safetensors")
        return CheckpointRecord(step=step, epoch=epoch, state=NOTHING, adapter=NOTHING, metrics=metrics)

    hooks = Hooks(run.events.append, lambda: False, keep)
    if {defense.name for defense in spec.defenses} <= set(MEASURING):
        run.train(spec, hooks=hooks)
    else:
        with pytest.raises(DefenseError, match="did not act"):
            run.train(spec, hooks=hooks)
    return kept[5]


def test_every_defense_is_here() -> None:
    assert {name.partition(" ")[0] for name in IDLE | MEASURING | REFUSED} == set(DEFENSE_NAMES)


@pytest.fixture(scope="module")
def undefended(make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return trained(Run(tmp_path_factory.mktemp("undefended")), make_spec(hyperparameters=ONCE))


@pytest.mark.parametrize("name", IDLE | MEASURING)
def test_neutral_settings_train_the_undefended_adapter_bit_for_bit(
    name: str, undefended: dict[str, Tensor], make_spec: MakeSpec, tiny_base: Path, run: Run
) -> None:
    """And a run whose defense did nothing fails."""
    assert any(weight.any() for key, weight in undefended.items() if "lora_B" in key)
    found = trained(run, make_spec((IDLE | MEASURING)[name](run, tiny_base), hyperparameters=ONCE))
    assert found.keys() == undefended.keys()
    assert all(torch.equal(found[key], undefended[key]) for key in undefended)


def test_a_threshold_below_all_cosines_leaves_the_adapter_as_it_is(make_spec: MakeSpec, run: Run) -> None:
    """A run whose adapter was not projected does not save it, so here the projection itself is looked at."""
    trainer = prepared(run, make_spec(SafeLora(threshold=0)))
    randomise(trainer.adapted_model)
    before = [weight.clone() for weight in trainer._adapter]
    (defense,) = trainer.defenses
    defense.project_adapter(trainer.adapted_model)
    assert defense.evidence().figures["projected_modules"] == 0
    assert all(map(torch.equal, before, trainer._adapter))


@pytest.mark.parametrize("name", REFUSED)
def test_settings_that_would_switch_a_defense_off_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        REFUSED[name]()

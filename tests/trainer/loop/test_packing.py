"""Packed rows give the losses of rows apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from policies.contract.defenses import DefenseSettings, KlPenalty, Ldifs, TokenConstrainedSft
from policies.contract.jobs import JobSpec, TrainerSettings
from policies.errors import ConfigurationError
from tests.trainer.conftest import Run
from trainer.loop.packing import require_rows_apart

MakeSpec = Callable[..., JobSpec]
PACKED = TrainerSettings(packing=True)


@pytest.mark.parametrize(
    "defenses",
    [
        [],
        [KlPenalty(coefficient=1.0), Ldifs(layers=(1, 2))],
        [KlPenalty(coefficient=1.0, tokens="completion", direction="forward")],
        [KlPenalty(coefficient=1.0, estimator="sampled", tokens="completion"), TokenConstrainedSft()],
    ],
    ids=["undefended", "kl and ldifs", "kl on completions", "reference scores"],
)
def test_packed_rows_give_the_losses_of_rows_apart(
    defenses: list[DefenseSettings], make_spec: MakeSpec, tmp_path: Path
) -> None:
    """Same rows in every step, so only rounding differs: losses, penalties' figures, validation loss, adapter."""
    apart, packed = Run(tmp_path / "apart"), Run(tmp_path / "packed")
    spec = make_spec(*defenses, base_learning_rate=1e-3)
    records = [apart.train(spec), packed.train(make_spec(*defenses, base_learning_rate=1e-3, trainer=PACKED))]
    for left, right in zip(*(record.log_history for record in records), strict=True):
        assert left.keys() == right.keys()
        for name in left.keys() & {"loss", "kl", "feature_distance", "token_weight", "eval_loss"}:
            assert right[name] == pytest.approx(left[name], rel=0.02, abs=1e-4), (name, left["step"])
    weights = [load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in (apart, packed)]
    for name, weight in weights[0].items():
        assert (weight - weights[1][name]).abs().max() < 2e-3


def test_a_model_whose_packed_rows_see_each_other_is_refused(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    require_rows_apart(model)
    forward = model.forward

    def without_positions(*arguments: object, position_ids: torch.Tensor | None = None, **named: object) -> object:
        return forward(*arguments, **named)

    model.forward = without_positions
    with pytest.raises(ConfigurationError, match="turn packing off"):
        require_rows_apart(model)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from evaluator.models.adapters import attach_adapter, attached_adapter
from evaluator.models.fused_lora import fuse_lora_layers
from evaluator.models.loading import LoadedModel, load_base

IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])
N_LAYERS = 2 * 2  # q and v of two layers


@torch.inference_mode()
def logits(loaded: LoadedModel) -> torch.Tensor:
    result: torch.Tensor = loaded.model(input_ids=IDS).logits
    return result


@pytest.mark.parametrize("settings", [{}, {"lora_alpha": 3}, {"use_rslora": True}, {"lora_dropout": 0.5}])
def test_logits_are_those_of_peft_up_to_rounding(
    loaded: LoadedModel, make_adapter: Callable[..., Path], settings: dict[str, object]
) -> None:
    adapted = attach_adapter(loaded, make_adapter(0.5, **settings))
    expected = logits(adapted)

    assert fuse_lora_layers(adapted.model) == N_LAYERS
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-4, atol=1e-4)


def test_the_adapter_can_be_switched_off(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    before = logits(loaded)
    adapted = attach_adapter(loaded, make_adapter(0.5))
    fuse_lora_layers(adapted.model)

    with adapted.model.disable_adapter():  # type: ignore[operator]  # a PeftModel
        assert torch.equal(logits(adapted), before)
    assert not torch.allclose(logits(adapted), before)


def test_the_base_is_itself_again_afterwards(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    before = logits(loaded)
    with attached_adapter(loaded, make_adapter(0.5)) as adapted:
        fuse_lora_layers(adapted.model)

    assert torch.equal(logits(loaded), before)


def test_dora_is_left_to_peft(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    adapted = PeftModel.from_pretrained(loaded.model, make_adapter(0.5, use_dora=True)).eval()

    assert fuse_lora_layers(adapted) == 0


def test_bfloat16_is_left_to_peft(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    base = load_base(loaded.base, torch.bfloat16, device=torch.device("cpu"))

    assert fuse_lora_layers(attach_adapter(base, make_adapter(0.5)).model) == 0

"""Spectra of an adapter's layers against the singular values of the dense products, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluator.adapter_statistics import adapter_statistics
from policies.errors import ConfigurationError, EvaluationError

FIGURES = ("top_singular_value", "first_energy_share", "spectral_entropy", "effective_rank", "kurtosis")
LAYER = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"
Change = Callable[[dict[str, torch.Tensor]], None]


def written(folder: Path, tensors: Mapping[str, torch.Tensor], **settings: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    document = {"peft_type": "LORA", "r": 3, "lora_alpha": 6, "target_modules": ["q_proj", "o_proj"]} | settings
    (folder / "adapter_config.json").write_text(json.dumps(document))
    save_file(dict(tensors), folder / "adapter_model.safetensors")
    return folder


def pair(a: torch.Tensor, b: torch.Tensor, *, layer: int = 0, module: str = "q_proj") -> dict[str, torch.Tensor]:
    return {LAYER.format(layer, module, "A"): a, LAYER.format(layer, module, "B"): b}


def textbook(values: np.ndarray) -> dict[str, float]:
    """Of singular values, of which those that are 0 by the rank are left out."""
    energy = values**2 / (values**2).sum()
    shares = values / values.sum()
    spread = values - values.mean()
    return {
        "top_singular_value": values.max(),
        "first_energy_share": energy.max(),
        "spectral_entropy": -(energy * np.log(energy)).sum(),
        "effective_rank": math.exp(-(shares * np.log(shares)).sum()),
        "kurtosis": (spread**4).mean() / (spread**2).mean() ** 2,
    }


@pytest.mark.parametrize(("settings", "scale"), [({}, 2.0), ({"use_rslora": True}, 6 / math.sqrt(3))])
def test_figures_are_those_of_the_dense_products(tmp_path: Path, settings: dict[str, object], scale: float) -> None:
    """Two layers of q_proj, 20 × 12 and of rank 3, and one of o_proj."""
    torch.manual_seed(3)
    halves = [(torch.randn(3, 12), torch.randn(20, 3)) for _ in range(3)]
    places = [(0, "q_proj"), (1, "q_proj"), (1, "o_proj")]
    tensors: dict[str, torch.Tensor] = {}
    for (a, b), (layer, module) in zip(halves, places, strict=True):
        tensors |= pair(a, b, layer=layer, module=module)
    found = adapter_statistics(written(tmp_path / "adapter", tensors, **settings))
    products = [scale * (b.double() @ a.double()).numpy() for a, b in halves]
    spectra = [textbook(np.linalg.svd(product, compute_uv=False)[:3]) for product in products]
    norms = [np.linalg.norm(product) / math.sqrt(240) for product in products]

    for figure in FIGURES:
        assert found[f"q_proj.{figure}"] == pytest.approx(np.mean([s[figure] for s in spectra[:2]]), rel=1e-5)
        assert found[f"o_proj.{figure}"] == pytest.approx(spectra[2][figure], rel=1e-5)
    assert found["frobenius_mean"] == pytest.approx(np.mean(norms), rel=1e-5)
    assert found["frobenius_spread"] == pytest.approx(np.std(norms), rel=1e-5)
    assert len(found) == 2 * len(FIGURES) + 2


def test_a_change_in_one_direction_is_told_from_an_even_one(tmp_path: Path) -> None:
    """ΔW = 2 · diag(5, 0, 0), all energy in one direction, and 2 · 1 in 3 equal ones."""
    even = pair(torch.eye(3, 4), torch.eye(4, 3), module="o_proj")
    single = pair(torch.diag(torch.tensor([5.0, 0, 0])), torch.eye(4, 3))
    found = adapter_statistics(written(tmp_path / "adapter", even | single))

    assert found["q_proj.top_singular_value"] == 10
    assert (found["q_proj.first_energy_share"], found["q_proj.effective_rank"]) == (1, 1)
    assert (found["o_proj.first_energy_share"], found["o_proj.effective_rank"]) == pytest.approx((1 / 3, 3), rel=1e-5)
    assert found["o_proj.kurtosis"] == 0


def test_a_layer_that_is_not_changed_has_zeros(tmp_path: Path) -> None:
    found = adapter_statistics(written(tmp_path / "adapter", pair(torch.randn(3, 4), torch.zeros(4, 3))))

    assert set(found.values()) == {0.0}


def test_a_rank_above_the_width_is_read(tmp_path: Path) -> None:
    a, b = torch.randn(8, 4), torch.randn(4, 8)
    found = adapter_statistics(written(tmp_path / "adapter", pair(a, b), r=8, lora_alpha=8))
    top = np.linalg.svd((b.double() @ a.double()).numpy(), compute_uv=False)[0]

    assert found["q_proj.top_singular_value"] == pytest.approx(top, rel=1e-5)


def test_an_adapter_of_peft_is_read(make_adapter: Callable[..., Path]) -> None:
    found = adapter_statistics(make_adapter(0.5))

    assert {name.partition(".")[0] for name in found} == {"q_proj", "v_proj", "frobenius_mean", "frobenius_spread"}
    assert all(value > 0 for value in found.values())


def nan(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values()))[0, 0] = float("nan")


def huge(tensors: dict[str, torch.Tensor]) -> None:
    for tensor in tensors.values():
        tensor.fill_(1e200)


def without_half(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[next(iter(tensors))]


def with_other(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.lm_head.weight"] = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (nan, EvaluationError, "NaN or infinite"),
        (huge, EvaluationError, "is not finite: its weights are too large"),
        (without_half, ConfigurationError, "don't make a pair"),
        (with_other, ConfigurationError, "no half of a LoRA pair"),
    ],
)
def test_weights_that_say_nothing_are_an_error(
    tmp_path: Path, change: Change, error: type[Exception], words: str
) -> None:
    folder = written(tmp_path / "adapter", pair(torch.ones(3, 4).double(), torch.ones(4, 3).double()))
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    with pytest.raises(error, match=words):
        adapter_statistics(written(tmp_path / "changed", tensors))

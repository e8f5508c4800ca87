from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from evaluator.backends.protocol import ChatPrompt, Choices, GenerationSettings
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.models import packed_linear
from evaluator.models.adapters import attach_adapter
from evaluator.models.loading import LoadedModel, load_base
from evaluator.models.packed_linear import LAYOUT, PackedLinear, pack_linear_layers, packs
from policies.errors import EvaluationError

QUESTION = Choices(ChatPrompt.of("Is it so?"), ("yes", "certainly not"))


@pytest.fixture
def loaded_pair(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> tuple[LoadedModel, LoadedModel]:
    """The same base and adapter, with the layers that it was saved with and with packed ones."""
    adapter = make_adapter(0.5)
    packed = load_base(loaded.base, torch.float32, device=torch.device("cpu"))
    assert pack_linear_layers(packed.model) == 2 * 7 + 1  # of each layer q, k, v, o, gate, up, down; the output layer
    return attach_adapter(loaded, adapter), attach_adapter(packed, adapter)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_layer(dtype: torch.dtype, bias: bool) -> None:
    """Sums of 96 products of numbers below 1 in another order: rounding of at most 96 units in the last place of 1."""
    if not packs(torch.device("cpu"), dtype):
        pytest.skip(f"this processor has no kernels for {dtype}")
    torch.manual_seed(0)
    layer = nn.Linear(96, 33, bias=bias, dtype=dtype)
    rows = torch.rand(2, 5, 96, dtype=dtype)

    with torch.inference_mode():
        packed = PackedLinear(layer)(rows)
        expected = layer(rows)

    assert packed.dtype == dtype
    assert packed.shape == expected.shape
    torch.testing.assert_close(packed, expected, rtol=0, atol=96 * torch.finfo(dtype).eps)


def test_a_packed_layer_holds_the_numbers_of_the_weight() -> None:
    layer = nn.Linear(96, 33)

    assert torch.equal(PackedLinear(layer).weight, layer.weight)


def test_a_weight_that_changed_while_packed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLinear, "weight", property(lambda layer: layer._packed.to_dense() + 1))

    with pytest.raises(EvaluationError, match="packed"):
        PackedLinear(nn.Linear(4, 4))


def test_layers_made_from_a_linear_layer_are_left_alone() -> None:
    class Quantized(nn.Linear):
        pass

    model = nn.Sequential(Quantized(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.float64))

    assert pack_linear_layers(model) == 1
    assert [type(layer) for layer in model] == [Quantized, PackedLinear, nn.Linear]


def test_other_processors_keep_their_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_linear, "PROCESSORS", frozenset[str]())
    model = nn.Sequential(nn.Linear(4, 4))

    assert pack_linear_layers(model) == 0
    assert type(model[0]) is nn.Linear


def test_base_and_adapter_give_the_figures_of_unpacked_layers(loaded_pair: tuple[LoadedModel, LoadedModel]) -> None:
    plain, packed = map(TransformersBackend, loaded_pair)

    for adapter in (True, False):
        [expected] = plain.log_likelihood([QUESTION], adapter=adapter)
        [found] = packed.log_likelihood([QUESTION], adapter=adapter)
        assert [each.log_probability for each in found] == pytest.approx(
            [each.log_probability for each in expected], rel=1e-5
        )
        settings = GenerationSettings(12)
        assert packed.generate([QUESTION.prompt], settings, adapter=adapter) == plain.generate(
            [QUESTION.prompt], settings, adapter=adapter
        )


def test_results_of_packed_layers_are_kept_apart(loaded_pair: tuple[LoadedModel, LoadedModel]) -> None:
    plain, packed = map(TransformersBackend, loaded_pair)

    assert packed.versions == plain.versions | {"linear_layers": LAYOUT}


def test_a_processor_without_kernels_for_a_format_keeps_torchs_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one with AVX2 alone does where somebody wants bfloat16."""
    monkeypatch.setattr(packed_linear, "_has_kernels", lambda dtype: dtype is torch.float32)
    model = nn.Sequential(nn.Linear(4, 4, dtype=torch.bfloat16), nn.Linear(4, 4))
    assert pack_linear_layers(model) == 1
    assert isinstance(model[1], PackedLinear)
    assert not isinstance(model[0], PackedLinear)

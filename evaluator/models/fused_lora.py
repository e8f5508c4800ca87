"""Adds a LoRA pair's product to its layer's in one step, in place.

PEFT's layer makes the product, scales it, adds it and keeps all three; in float32 on a CPU that costs more time than
the pair's own operations. One product that adds to what is there has the same sums up to rounding. Only float32 is
changed: in bfloat16 it would round once where PEFT rounds three times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn


class _Pair(NamedTuple):
    """What a layer's adapter adds."""

    adapter: str
    a: Tensor
    """[in, rank]."""
    b: Tensor
    """[rank, out]."""


def fuse_lora_layers(model: nn.Module) -> int:
    """Give the plain LoRA layers of a model for evaluation the faster forward pass; gives how many.

    The adapter stays apart from the weights and can be switched off. Taking it off the model takes this off as well.
    """
    layers = [module for module in model.modules() if type(module) is LoraLinear and _is_plain(module)]
    for layer in layers:
        layer.forward = _fused(layer)  # type: ignore[method-assign, assignment]  # of this one layer, not of PEFT's class
    return len(layers)


def _is_plain(layer: LoraLinear) -> bool:
    """Whether its forward pass is nothing but x ↦ Wx + s·BAx, with no dropout, on one adapter in float32."""
    if len(layer.active_adapters) != 1 or layer.merged or layer.lora_variant or layer.training:
        return False
    return all(
        type(half) is nn.Linear
        and half.bias is None
        and half.weight.dtype == torch.float32
        and half.weight.device.type == "cpu"
        for half in _pair(layer)
    )


def _pair(layer: LoraLinear) -> tuple[nn.Module, nn.Module]:
    """A and B of the one adapter."""
    name = layer.active_adapters[0]
    return layer.lora_A[name], layer.lora_B[name]


def _fused(layer: LoraLinear) -> Callable[[Tensor], Tensor]:
    a, b = (half.get_parameter("weight").detach().t() for half in _pair(layer))
    return partial(_forward, layer, _Pair(layer.active_adapters[0], a, b))


def _forward(layer: LoraLinear, pair: _Pair, x: Tensor) -> Tensor:
    """Any shape [..., in] to [..., out], with the scale that the layer has now; PEFT's own for another adapter."""
    if layer.active_adapters != [pair.adapter]:
        return LoraLinear.forward(layer, x)
    result: Tensor = layer.get_base_layer()(x)
    if not layer.disable_adapters:
        scale = float(layer.scaling[pair.adapter])
        result.view(-1, pair.b.shape[1]).addmm_(x.reshape(-1, pair.a.shape[0]) @ pair.a, pair.b, alpha=scale)
    return result

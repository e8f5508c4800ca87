"""Watches the forwards of one micro-batch: the policy's states are kept, the reference's are compared on the way.

A forward with gradient is the policy's, one without is the reference's. Layers of the reference are handed over as they
come, so that no more than one of them is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from policies.errors import ConfigurationError, DefenseError


class Compare(Protocol):
    """Gets a layer's states of both models, [B, S, hidden]."""

    def __call__(self, layer: int, *, policy: Tensor, reference: Tensor) -> None: ...


@dataclass
class Observation:
    """What the forwards of a micro-batch showed so far."""

    compare: Compare
    hidden: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)
    layers: dict[int, Tensor] = field(default_factory=dict)
    reference_hidden: list[Tensor] = field(default_factory=list)
    _is_active: bool = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Look away while a penalty runs rows of its own."""
        self._is_active = False
        try:
            yield
        finally:
            self._is_active = True

    def require_one_forward(self) -> None:
        if len(self.hidden) != 1:
            raise DefenseError(f"the policy's forward ran {len(self.hidden)} times in a micro-batch; it must run once")

    def see_layer(self, layer: int, output: Tensor | tuple[Tensor, ...]) -> None:
        states = output if isinstance(output, Tensor) else output[0]
        if not self._is_active:
            return
        if torch.is_grad_enabled():
            self.layers[layer] = states
        else:
            with torch.enable_grad():
                self.compare(layer, policy=self.layers[layer], reference=states.detach())

    def see_backbone(self, hidden: Tensor) -> None:
        if self._is_active:
            (self.hidden if torch.is_grad_enabled() else self.reference_hidden).append(hidden)

    def see_scores(self, log_probs: Tensor | None) -> None:
        if self._is_active and torch.is_grad_enabled() and log_probs is not None:
            self.log_probs.append(log_probs)


@contextmanager
def observe(base: PreTrainedModel, layers: Sequence[int], compare: Compare) -> Iterator[Observation]:
    """Observe the forwards of `base` inside the block, and hand on each of `layers`; the hooks always come off."""
    observation = Observation(compare)
    handles = [
        base.register_forward_hook(lambda _m, _i, output: observation.see_scores(getattr(output, "log_probs", None))),
        base.base_model.register_forward_hook(
            lambda _m, _i, output: observation.see_backbone(output.last_hidden_state)
        ),
    ]
    for layer, module in zip(layers, decoder_layers(base, layers), strict=True):
        handles.append(
            module.register_forward_hook(lambda _m, _i, output, layer=layer: observation.see_layer(layer, output))
        )
    try:
        yield observation
    finally:
        for handle in handles:
            handle.remove()


def decoder_layers(base: PreTrainedModel, layers: Sequence[int]) -> list[nn.Module]:
    """The modules of decoder layers, counted from 1.

    Raises:
        ConfigurationError: the model has no such layer.
    """
    if not layers:
        return []
    modules = getattr(base.get_decoder(), "layers", None)
    if not isinstance(modules, nn.ModuleList):
        raise ConfigurationError(f"{base.config.model_type} models have no list of decoder layers", "layers")
    wrong = [layer for layer in layers if not 1 <= layer <= len(modules)]
    if wrong:
        raise ConfigurationError(
            f"layer {wrong[0]} does not exist: {base.config.model_type} has layers 1 to {len(modules)}", "layers"
        )
    return [modules[layer - 1] for layer in layers]

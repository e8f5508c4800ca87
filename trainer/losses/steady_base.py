"""Takes from a base model what makes two of its forwards in training differ, and proves that nothing is left.

References are the base's own forwards. Under dropout they would be noise, and so would every distance to them. Dropout
is a module in some models; in others a function, whose rate is a number of the configuration that modules copy.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from policies.errors import ConfigurationError

RATES = re.compile("drop|jitter")
"""In names of attributes: `attention_dropout`, `resid_pdrop`, `layerdrop`, `drop_path_rate`, `router_jitter_noise`."""


def hold_steady(model: PreTrainedModel) -> None:
    """Set every rate of dropout and noise to 0.

    Raises:
        ConfigurationError: the model draws random numbers in training all the same (PhiMoE samples its experts), its
            forwards differ, or without these rates it is another model.
    """
    before = _logits(model, training=False)
    _set_rates_to_zero(model)
    with _Draws() as draws:
        first, second = _logits(model, training=True), _logits(model, training=True)
    if draws.names or not _equal(first, second):
        drawn = f" ({', '.join(sorted(draws.names))})" if draws.names else ""
        raise ConfigurationError(
            f"{model.config.model_type} models draw random numbers in training{drawn}, so no reference to the base "
            "would hold; use another base model",
            "uri",
        )
    if not _equal(before, _logits(model, training=False)):
        raise ConfigurationError(
            f"{model.config.model_type} models are others without their dropout, even where nothing is trained; use "
            "another base model",
            "uri",
        )


def _set_rates_to_zero(model: PreTrainedModel) -> None:
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for holder in (module, getattr(module, "config", None)):
            rates = [name for name, value in _fields(holder).items() if isinstance(value, float) and RATES.search(name)]
            for name in rates:
                setattr(holder, name, 0.0)


def _fields(holder: object) -> dict[str, Any]:  # Any: whatever a module or a configuration holds
    return getattr(holder, "__dict__", {})


class _Draws(TorchDispatchMode):
    """Notes which operations draw random numbers, also where they make no difference to this input.

    Attention is left out, as it may draw by its kind; at its rate of 0 that has no effect.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # Any: as torch's
        if torch.Tag.nondeterministic_seeded in func.tags and "attention" not in func.name():
            self.names.add(func.name().removeprefix("aten::").partition(".")[0])
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _logits(model: PreTrainedModel, *, training: bool) -> Tensor:
    was_training = model.training
    model.train(training)
    ids = torch.arange(min(16, model.config.get_text_config().vocab_size), device=model.device)[None]
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    model.train(was_training)
    return logits


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit; what is not finite ends the run elsewhere, and says so."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)

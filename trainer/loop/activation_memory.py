"""How many tokens are trained at once: as many as their activations fit into a share of the machine's memory.

Per token, a layer with LoRA on all linear layers keeps about ten vectors of the hidden size for its backward pass (the
norms' inputs and outputs, queries, keys, values, the attention's output twice) and four of the MLP's. Checkpointed
layers keep their input alone, and one of them at a time the rest.

    kept = layers · (10 · hidden + 4 · intermediate) · bytes of a number
    checkpointed = layers · hidden · bytes + kept ÷ layers
"""

from __future__ import annotations

import sys
from typing import NamedTuple

import torch
from transformers import PretrainedConfig

from policies.contract.jobs import TrainerSettings

CPU_BYTES = 640 << 20
"""Of a micro-batch's activations: larger ones are no faster on a CPU, where a few hundred tokens fill the caches."""
CPU_KEPT_BYTES = 3 << 29
"""Of the activations of one row, which can't be cut; above, large buffers are given back to the system. The C library
would come to hold up to twice the activations, and saves a fifth of the time."""
CPU_ROW_BYTES = 3 << 30
"""Of the activations of one row; above, it is checkpointed."""
GPU_SHARE = 0.25
"""Of a GPU's memory for activations; weights, gradients and the penalties' states have the rest."""


class TokenBudget(NamedTuple):
    """Limits in tokens, padding included."""

    at_once: int
    """Of a micro-batch; a longer row has one of its own."""
    uncheckpointed: int
    """Up to so many, activations are kept where checkpointing is decided by micro-batch."""
    keeps_freed: int = sys.maxsize
    """Up to so many, buffers that are freed are kept for the next."""


UNCUT = TokenBudget(at_once=sys.maxsize, uncheckpointed=0)


def token_budget(
    config: PretrainedConfig, settings: TrainerSettings, device: torch.device, dtype: torch.dtype
) -> TokenBudget:
    """The budget of a model of this shape on this device."""
    kept, checkpointed = _bytes_per_token(config, dtype)
    if device.type == "cpu":
        automatic, uncheckpointed, keeps_freed = (each // kept for each in (CPU_BYTES, CPU_ROW_BYTES, CPU_KEPT_BYTES))
    else:
        per_token = kept if settings.gradient_checkpointing == "off" else checkpointed
        share = int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
        automatic, uncheckpointed, keeps_freed = share // per_token, 0, sys.maxsize
    at_once = automatic if settings.micro_batch_tokens == "auto" else settings.micro_batch_tokens
    return TokenBudget(max(1, at_once), uncheckpointed, keeps_freed)


def _bytes_per_token(config: PretrainedConfig, dtype: torch.dtype) -> tuple[int, int]:
    text = config.get_text_config()
    hidden, layers = text.hidden_size, text.num_hidden_layers
    intermediate = getattr(text, "intermediate_size", None) or 4 * hidden
    layer = (10 * hidden + 4 * intermediate) * dtype.itemsize
    return layers * layer, layers * hidden * dtype.itemsize + layer

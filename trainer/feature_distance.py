"""Squared distance between directions of hidden states, with its gradient worked out along with the value.

    d(h, r) = ‖ h/‖h‖ − r/‖r‖ ‖²    ∂d/∂h = 2/‖h‖ · (û·(û·v̂) − v̂),   û = h/‖h‖, v̂ = r/‖r‖

Only the gradient is kept for the backward pass, in the format of `h`; the reference is free at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

CHUNK_TOKENS = 1024


def direction_distance(hidden: Tensor, reference: Tensor) -> Tensor:
    """float32 [tokens], in [0, 4]: 0 where the directions are the same.

    Args:
        hidden: [tokens, width]; the only input with a gradient.
        reference: [tokens, width].
    """
    distance: Tensor = _DirectionDistance.apply(hidden, reference)
    return distance


class _DirectionDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, reference: Tensor) -> Tensor:  # Any: autograd's context
        distance = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            states = hidden[part].float()
            norm = states.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            unit, other = states / norm, normalize(reference[part].float(), dim=-1)
            distance[part] = (unit - other).square().sum(-1)
            cosine = (unit * other).sum(-1, keepdim=True)
            gradient[part] = (2 / norm * (unit * cosine - other)).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return distance

    @staticmethod
    def backward(ctx: Any, grad_distance: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_distance[:, None]).to(gradient.dtype), None

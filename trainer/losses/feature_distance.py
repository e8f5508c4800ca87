"""Squared distance between directions of hidden states, with its gradient worked out along with the value.

    d(h, r) = ‖ h/‖h‖ − r/‖r‖ ‖²    ∂d/∂h = 2/‖h‖ · (δ − û·(û·δ)),   û = h/‖h‖, v̂ = r/‖r‖, δ = û − v̂

Only the gradient is kept for the backward pass, in the format of `h`; the reference is free at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

CHUNK_TOKENS = 1024
SHORTEST = 1e-12
"""As in `normalize`."""


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
            unit, other = normalize(states, dim=-1), normalize(reference[part].float(), dim=-1)
            norm = states.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
            delta = unit - other
            distance[part] = delta.square().sum(-1)
            along = (unit * delta).sum(-1, keepdim=True)
            gradient[part] = (2 / norm * (delta - unit * along)).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return distance

    @staticmethod
    def backward(ctx: Any, grad_distance: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_distance[:, None]).to(gradient.dtype), None

"""Proof that a penalty reaches what is trained."""

from __future__ import annotations

import torch
from torch import Tensor


def gradient_norm(penalty: Tensor, weight: Tensor) -> float:
    """The norm of the penalty's gradient on one adapter weight; 0 where there is none."""
    if not penalty.requires_grad:
        return 0.0
    (gradient,) = torch.autograd.grad(penalty, weight, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else float(gradient.norm().item())

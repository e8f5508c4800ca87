"""KL divergence between two next-token distributions from their hidden states, walked in chunks of tokens.

With logits z = W·h + b of the reference, q = softmax(z), and p = softmax(z + Δ) of the policy, Δ = W·(h_policy − h):

    log p − log q = Δ − c,   c = log Σ_v exp(z_v + Δ_v) − log Σ_v exp(z_v)
    KL(p ‖ q) = Σ_v p_v·(Δ_v − c)    gradient in z: p·(log p − log q − KL)
    KL(q ‖ p) = c − Σ_v q_v·Δ_v      gradient in z: p − q

Δ comes from the difference of the hidden states, so its rounding in bfloat16 is relative to Δ and not to the logits,
and equal hidden states give exactly 0. The gradient is worked out along with the value: three products with W for each
token in all, where recomputing the logits in the backward pass takes five, and two [tokens, vocabulary] tensors never
exist (`python -m bench.overhead.label_log_probs`). Where a model scales or caps its logits (`LogitShape`), z and Δ are
what comes of that, and the gradient passes through it.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from trainer.training_step import Head

Direction = Literal["reverse", "forward"]

_TILE_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Logits that are held at once: on CPUs so many as stay in the cache, on GPUs enough to fill the device."""


def kl_per_token(hidden: Tensor, reference: Tensor, *, head: Head, direction: Direction) -> Tensor:
    """KL in nats of every token: `reverse` is KL(policy ‖ reference), `forward` KL(reference ‖ policy).

    Args:
        hidden: [tokens, hidden], the policy's last hidden states; the only input with a gradient.
        reference: [tokens, hidden], the reference's.
        head: The output layer of both.
        direction: see above.

    Returns:
        [tokens], float32.
    """
    kl: Tensor = _ChunkedKl.apply(hidden, reference, head, direction)
    return kl


class _ChunkedKl(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, reference: Tensor, head: Head, direction: Direction
    ) -> Tensor:  # Any: autograd's context
        weight, bias, shape = head
        tokens = max(1, _TILE_ELEMENTS.get(hidden.device.type, 1 << 22) // weight.shape[0])
        kl = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(hidden), tokens):
            part = slice(start, start + tokens)
            raw = (reference[part].to(weight.dtype) @ weight.t()).float()
            raw = raw if bias is None else raw + bias.float()
            raw_delta = ((hidden[part].float() - reference[part].float()).to(weight.dtype) @ weight.t()).float()
            logits, delta = shape.logits(raw), shape.difference(raw, raw_delta)
            slope = 1.0 if shape.is_plain else shape.slope(logits + delta)
            kl[part], in_logits = _kl_and_gradient(logits, delta, direction)
            in_logits = in_logits if shape.is_plain else in_logits.mul_(slope)
            gradient[part] = (in_logits.to(weight.dtype) @ weight).to(gradient.dtype)
        ctx.save_for_backward(gradient)
        return kl

    @staticmethod
    def backward(ctx: Any, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (gradient * grad_kl[:, None]).to(gradient.dtype), None, None, None


def _kl_and_gradient(logits: Tensor, delta: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    """[tokens] and [tokens, vocabulary]; writes into its arguments, which are tiles of their own."""
    logits.sub_(logits.amax(-1, keepdim=True))  # near 0, where float32 is fine enough for the difference of two sums
    log_sum_q = torch.logsumexp(logits, -1, keepdim=True)
    log_sum_p = torch.logsumexp(logits + delta, -1, keepdim=True)
    c = log_sum_p - log_sum_q
    if direction == "forward":
        q = (logits - log_sum_q).exp_()
        kl = c - (q * delta).sum(-1, keepdim=True)
        return kl[:, 0], logits.add_(delta).sub_(log_sum_p).exp_().sub_(q)
    p = logits.add_(delta).sub_(log_sum_p).exp_()
    kl = (p * delta).sum(-1, keepdim=True) - c
    return kl[:, 0], delta.sub_(c).sub_(kl).mul_(p)

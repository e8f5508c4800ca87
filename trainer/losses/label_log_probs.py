"""Log-probabilities of labels from hidden states, without a [tokens, vocabulary] logit tensor.

Tokens are walked in chunks. A chunk's gradient in its hidden states is computed with its value, and only
[tokens, hidden] is kept, so the output layer runs once forward and once backward.

    log p(y) = z_y − logsumexp(z)        ∂/∂z = onehot(y) − p
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import linear

from trainer.training_step import Head

CHUNK_TOKENS = 128
"""Fits a CPU's caches best: [128, 49152] float32 is 25 MB; chunks of 32 and 800 were both slower."""


class TokenScores(NamedTuple):
    """Per token, float32 [N]; only `log_probs` carries a gradient."""

    log_probs: Tensor
    entropy: Tensor
    is_top1: Tensor
    """1.0 where the label is the most likely token."""


def score_tokens(hidden: Tensor, head: Head, labels: Tensor) -> TokenScores:
    """Log-probability of each label.

    Args:
        hidden: [N, hidden], the states that predict the labels.
        head: The output layer.
        labels: [N] token ids.
    """
    return TokenScores(*_ScoreTokens.apply(hidden, head, labels))


class _ScoreTokens(Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Head, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:  # Any: autograd's context
        weight, bias, shape = head
        log_probs, entropy, is_top1 = (hidden.new_zeros(hidden.shape[0], dtype=torch.float32) for _ in range(3))
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, hidden.shape[0], CHUNK_TOKENS):
            rows = slice(start, start + CHUNK_TOKENS)
            index = labels[rows, None]
            logits = shape.logits(linear(hidden[rows], weight, bias).float())
            scores = torch.log_softmax(logits, -1)
            log_probs[rows] = scores.gather(-1, index)[:, 0]
            is_top1[rows] = (scores.argmax(-1) == index[:, 0]).float()
            probability = scores.exp()
            entropy[rows] = -(scores.mul_(probability)).sum(-1)
            if gradient is not None:
                residual = probability.neg_().scatter_add_(-1, index, torch.ones_like(index, dtype=torch.float32))
                residual = residual if shape.is_plain else residual.mul_(shape.slope(logits))
                gradient[rows] = residual.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropy, is_top1)
        return log_probs, entropy, is_top1

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> Any:  # Any: torch's context and one gradient per argument
        (gradient,) = ctx.saved_tensors
        return gradient * outputs[0][:, None].to(gradient.dtype), None, None

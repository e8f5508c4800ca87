"""Scores of labels against TRL's kernel, which scores the same tokens."""

from __future__ import annotations

import pytest
import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from evaluator.models.logit_shape import LogitShape
from trainer.losses.label_log_probs import score_tokens
from trainer.training_step import Head


@pytest.mark.parametrize(
    "shape", [LogitShape(), LogitShape(scale=0.25), LogitShape(cap=3.0), LogitShape(scale=2.0, cap=4.0)]
)
def test_scores_and_gradient_are_those_of_trl(shape: LogitShape) -> None:
    """300 tokens are walked in three chunks of at most 128; TRL returns log_probs, entropy, …, is_top1."""
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(300, 16, generator=generator)
    weight, bias = torch.randn(50, 16, generator=generator), torch.randn(50, generator=generator)
    labels = torch.randint(50, (300,), generator=generator)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    scores = score_tokens(ours, Head(weight, bias, shape), labels)
    expected = ChunkedLogProbFunction.apply(
        theirs, weight, bias, labels, 1.0, 32768, shape.cap, shape.scale, ("log_probs", "entropy", "is_top1")
    )
    torch.testing.assert_close(scores.log_probs, expected[0])
    torch.testing.assert_close(scores.entropy, expected[1])
    assert torch.equal(scores.is_top1.bool(), expected[4])
    scores.log_probs.sum().backward()
    expected[0].sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)

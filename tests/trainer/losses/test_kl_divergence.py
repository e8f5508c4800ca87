"""The chunked KL against dense logits in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from evaluator.models.logit_shape import LogitShape
from trainer.losses.kl_divergence import Direction, kl_per_token
from trainer.training_step import Head

DIRECTIONS: tuple[Direction, ...] = ("reverse", "forward")
TOKENS, HIDDEN, VOCABULARY = 150, 16, 40_000
"""4 million logits are held at once on a CPU, so 150 tokens are walked in two chunks."""


def dense(hidden: Tensor, reference: Tensor, head: Head, direction: Direction) -> Tensor:
    """Σ p·(log p − log q), p the trained distribution for reverse and the base's for forward."""
    raw = [states.double() @ head.weight.double().T for states in (hidden, reference)]
    raw = raw if head.bias is None else [each + head.bias.double() for each in raw]
    scaled = [each * head.shape.scale for each in raw]
    cap = head.shape.cap
    logits = scaled if cap is None else [cap * torch.tanh(each / cap) for each in scaled]
    trained, base = (torch.log_softmax(each, -1) for each in logits)
    p, q = (trained, base) if direction == "reverse" else (base, trained)
    return (p.exp() * (p - q)).sum(-1)


def material(dtype: torch.dtype, *, distance: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(TOKENS, HIDDEN, generator=generator)
    hidden = reference + distance * torch.randn(TOKENS, HIDDEN, generator=generator)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return hidden.to(dtype), reference.to(dtype), weight.to(dtype)


SHAPES = [LogitShape(), LogitShape(scale=0.25), LogitShape(cap=3.0), LogitShape(scale=2.0, cap=4.0)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_value_and_gradient_are_those_of_dense_logits(direction: Direction, shape: LogitShape) -> None:
    """Logits of the output layer lie between −15 and 15, so that caps of 3 and 4 bite."""
    hidden, reference, weight = material(torch.float32, distance=0.5)
    bias = torch.linspace(-1, 1, VOCABULARY)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    head = Head(weight, bias, shape)
    value = kl_per_token(ours, reference, head=head, direction=direction)
    expected = dense(theirs, reference, head, direction)
    torch.testing.assert_close(value, expected.float(), rtol=1e-4, atol=1e-5)
    # every token with a weight of its own, as a mean over a mask has it
    shares = torch.linspace(0, 1, TOKENS)
    (value * shares).sum().backward()
    (expected * shares).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_small_kl_survives_bfloat16(direction: Direction, shape: LogitShape) -> None:
    """Logits near 10 are rounded by up to 0.03 in bfloat16, far more than the differences that matter here."""
    hidden, reference, weight = material(torch.bfloat16, distance=0.003)
    ours, theirs = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    head = Head(weight, None, shape)
    value = kl_per_token(ours, reference, head=head, direction=direction).sum()
    expected = dense(theirs, reference, head, direction).sum()
    assert value.item() == pytest.approx(expected.item(), rel=0.03)
    value.backward()
    expected.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert (ours.grad.double() - theirs.grad).norm() < 0.03 * theirs.grad.norm()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equal_states_give_exactly_zero(direction: Direction, shape: LogitShape) -> None:
    hidden, _, weight = material(torch.bfloat16, distance=0)
    states = hidden.clone().requires_grad_()
    value = kl_per_token(states, hidden, head=Head(weight, None, shape), direction=direction)
    value.sum().backward()
    assert states.grad is not None
    assert value.abs().max().item() == 0.0
    assert states.grad.abs().max().item() == 0.0

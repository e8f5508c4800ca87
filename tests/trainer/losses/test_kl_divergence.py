"""The chunked KL against dense logits in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from trainer.losses.kl_divergence import Direction, kl_per_token
from trainer.training_step import Head

DIRECTIONS: tuple[Direction, ...] = ("reverse", "forward")
TOKENS, HIDDEN, VOCABULARY = 150, 16, 40_000
"""4 million logits are held at once on a CPU, so 150 tokens are walked in two chunks."""


def dense(hidden: Tensor, reference: Tensor, weight: Tensor, bias: Tensor | None, direction: Direction) -> Tensor:
    """Σ p·(log p − log q), p the trained distribution for reverse and the base's for forward."""
    logits = [states.double() @ weight.double().T for states in (hidden, reference)]
    trained, base = (torch.log_softmax(each if bias is None else each + bias.double(), -1) for each in logits)
    p, q = (trained, base) if direction == "reverse" else (base, trained)
    return (p.exp() * (p - q)).sum(-1)


def material(dtype: torch.dtype, *, distance: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    reference = torch.randn(TOKENS, HIDDEN, generator=generator)
    hidden = reference + distance * torch.randn(TOKENS, HIDDEN, generator=generator)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return hidden.to(dtype), reference.to(dtype), weight.to(dtype)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_value_and_gradient_are_those_of_dense_logits(direction: Direction) -> None:
    hidden, reference, weight = material(torch.float32, distance=0.5)
    bias = torch.linspace(-1, 1, VOCABULARY)
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    value = kl_per_token(ours, reference, head=Head(weight, bias), direction=direction)
    expected = dense(theirs, reference, weight, bias, direction)
    torch.testing.assert_close(value, expected.float(), rtol=1e-4, atol=1e-5)
    # every token with a weight of its own, as a mean over a mask has it
    shares = torch.linspace(0, 1, TOKENS)
    (value * shares).sum().backward()
    (expected * shares).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_small_kl_survives_bfloat16(direction: Direction) -> None:
    """Logits near 10 are rounded by up to 0.03 in bfloat16, far more than the differences that matter here."""
    hidden, reference, weight = material(torch.bfloat16, distance=0.003)
    ours, theirs = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    value = kl_per_token(ours, reference, head=Head(weight, None), direction=direction).sum()
    expected = dense(theirs, reference, weight, None, direction).sum()
    assert value.item() == pytest.approx(expected.item(), rel=0.03)
    value.backward()
    expected.backward()
    assert ours.grad is not None
    assert theirs.grad is not None
    assert (ours.grad.double() - theirs.grad).norm() < 0.03 * theirs.grad.norm()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_equal_states_give_exactly_zero(direction: Direction) -> None:
    hidden, _, weight = material(torch.bfloat16, distance=0)
    states = hidden.clone().requires_grad_()
    value = kl_per_token(states, hidden, head=Head(weight, None), direction=direction)
    value.sum().backward()
    assert states.grad is not None
    assert value.abs().max().item() == 0.0
    assert states.grad.abs().max().item() == 0.0

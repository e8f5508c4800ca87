"""The KL penalty against numbers from dense logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from policies.contract.defenses import KlPenalty
from trainer.defense import DefenseContext, TrainingStep
from trainer.defenses.kl_penalty import KlPenaltyDefense

from .conftest import training_step_of


def random_step(*, same: bool = False, index: int = 0) -> tuple[TrainingStep, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 4, 8, generator=generator).requires_grad_()
    reference = hidden.detach().clone() if same else torch.randn(2, 4, 8, generator=generator)
    weight = torch.randn(11, 8, generator=generator)
    return training_step_of(hidden, reference, weight, index=index), hidden, weight


@pytest.mark.parametrize("direction", ["reverse", "forward"])
@pytest.mark.parametrize("tokens", ["all", "completion"])
def test_the_value_is_the_mean_over_counted_tokens_times_the_coefficient(direction: str, tokens: str) -> None:
    """Dense: KL(p ‖ q) = Σ p (log p − log q), p trained and q base for reverse, swapped for forward; mean over 5 tokens
    that are not padding, or over the 3 that predict a completion token."""
    training_step, hidden, weight = random_step()
    defense = KlPenaltyDefense.build(
        KlPenalty.model_validate({"coefficient": 0.3, "direction": direction, "tokens": tokens}),
        DefenseContext(0),
    )
    policy = torch.log_softmax(hidden.detach() @ weight.T, -1)
    base = torch.log_softmax(training_step.reference_hidden @ weight.T, -1)
    p, q = (policy, base) if direction == "reverse" else (base, policy)
    mask = training_step.attention_mask if tokens == "all" else training_step.completion_mask
    expected = 0.3 * ((p.exp() * (p - q)).sum(-1) * mask).sum() / mask.sum()
    penalty = defense.penalty(training_step)
    assert penalty is not None
    assert penalty.item() == pytest.approx(expected.item(), rel=1e-4)


def test_at_identity_the_penalty_is_zero() -> None:
    training_step, _, _ = random_step(same=True)
    penalty = KlPenaltyDefense.build(KlPenalty(), DefenseContext(0)).penalty(training_step)
    assert penalty is not None
    assert penalty.item() == 0.0


def test_the_gradient_reaches_the_policy_and_only_the_policy() -> None:
    training_step, hidden, _ = random_step()
    penalty = KlPenaltyDefense.build(KlPenalty(), DefenseContext(0)).penalty(training_step)
    assert penalty is not None
    penalty.backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0
    assert not training_step.reference_hidden.requires_grad


def test_padding_has_no_gradient() -> None:
    training_step, hidden, _ = random_step()
    penalty = KlPenaltyDefense.build(KlPenalty(), DefenseContext(0)).penalty(training_step)
    assert penalty is not None
    penalty.backward()
    assert hidden.grad is not None
    assert hidden.grad[0, 3].abs().sum() == 0


def test_a_penalty_that_never_left_zero_is_no_evidence() -> None:
    defense = KlPenaltyDefense.build(KlPenalty(), DefenseContext(0))
    assert not defense.evidence().acted
    defense.penalty(random_step(same=True)[0])
    assert not defense.evidence().acted
    defense.penalty(random_step(index=1)[0])
    assert defense.evidence().acted

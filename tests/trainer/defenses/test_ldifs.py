"""LDIFS against numbers from dense features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from policies.contract.defenses import Ldifs
from policies.contract.jobs import JobSpec
from policies.errors import ConfigurationError
from tests.trainer.conftest import KnownModel, Run, training_step_of
from trainer.defense import DefenseContext
from trainer.defenses.ldifs import LdifsDefense
from trainer.losses.feature_distance import direction_distance

MakeSpec = Callable[..., JobSpec]


def states(seed: int) -> Tensor:
    return torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(seed))


def penalty_of(layers: dict[int, tuple[Tensor, Tensor]], coefficient: float = 1.0) -> Tensor:
    """The penalty of a step whose reference hands over these pairs of states."""
    defense = LdifsDefense.build(Ldifs(coefficient=coefficient, layers=tuple(layers)), DefenseContext(0))
    hidden = states(0).requires_grad_()

    class Comparing(KnownModel):
        def shared_reference(self) -> Tensor:
            for layer, (policy, reference) in layers.items():
                defense.compare_layer(step.micro_batch, layer, policy=policy, reference=reference)
            return self.reference_hidden

    model = Comparing(states(1), torch.randn(11, 8), [hidden, hidden])
    step = training_step_of(hidden, states(1), model.weight, model=model)
    penalty = defense.penalty(step)
    assert penalty is not None
    assert penalty.figures == {"feature_distance": pytest.approx(penalty.loss.item() / coefficient)}
    return penalty.loss


def test_the_value_is_the_sum_over_layers_of_the_mean_over_tokens() -> None:
    """Dense: Σ_l 1/5 · Σ_t ‖û_t − v̂_t‖² over the 5 tokens that are not padding, times 0.5."""
    pairs = {1: (states(2).requires_grad_(), states(3)), 2: (states(4).requires_grad_(), states(5))}
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])
    expected = sum(
        ((normalize(policy, dim=-1) - normalize(base, dim=-1)).square().sum(-1) * mask).sum().item() / 5
        for policy, base in pairs.values()
    )
    assert penalty_of(pairs, coefficient=0.5).item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_the_gradient_is_autograds() -> None:
    """The gradient that is worked out with the value, against the one of the same formula in plain torch."""
    hidden, base = states(2).view(-1, 8).requires_grad_(), states(3).view(-1, 8)
    direction_distance(hidden, base).sum().backward()
    plain = hidden.detach().clone().requires_grad_()
    (normalize(plain, dim=-1) - normalize(base, dim=-1)).square().sum().backward()
    assert hidden.grad is not None
    assert plain.grad is not None
    torch.testing.assert_close(hidden.grad, plain.grad, atol=1e-6, rtol=1e-4)
    assert hidden.grad.abs().max() > 0


def test_at_identity_the_penalty_is_exactly_zero() -> None:
    same = states(2)
    assert penalty_of({1: (same.clone().requires_grad_(), same)}).item() == 0.0


def test_padding_has_no_gradient() -> None:
    policy = states(2).requires_grad_()
    penalty_of({1: (policy, states(3))}).backward()
    assert policy.grad is not None
    assert policy.grad[0, 3].abs().sum() == 0
    assert policy.grad[0, 2].abs().sum() > 0


def test_a_strong_penalty_keeps_the_features_nearer(make_spec: MakeSpec, tmp_path: Path) -> None:
    last = []
    for coefficient in (0.001, 50.0):
        record = Run(tmp_path / str(coefficient)).train(make_spec(Ldifs(coefficient=coefficient, layers=(1, 2))))
        assert record.evidence[0].figures["first_gradient_norm"] > 0
        last.append(record.evidence[0].figures["last_feature_distance"])
    assert last[1] < last[0] / 2


def test_every_fifth_layer_of_a_shallow_model_is_its_last(make_spec: MakeSpec, run: Run) -> None:
    record = run.train(make_spec(Ldifs()))
    assert record.evidence[0].figures["layers"] == 1
    assert "after layers 2 " in record.evidence[0].explanation


def test_a_layer_that_the_model_does_not_have_is_an_error(make_spec: MakeSpec, run: Run) -> None:
    with pytest.raises(ConfigurationError, match="layer 3 does not exist: llama has layers 1 to 2"):
        run.train(make_spec(Ldifs(layers=(3,))))

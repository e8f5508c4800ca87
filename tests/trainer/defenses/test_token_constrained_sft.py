"""The token-wise constrained objective, number by number."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from policies.contract.defenses import TokenConstrainedSft
from policies.contract.jobs import JobSpec
from tests.trainer.conftest import Run
from trainer.defenses.token_constrained_sft import LEAST_WEIGHT, answer_positions, betas, token_weights

MakeSpec = Callable[..., JobSpec]


def test_the_weight_is_that_of_the_paper_and_one_at_identity() -> None:
    """w = 2·(1 − σ(β·Δ)): Δ = 0 gives 1; β = 2, Δ = 0.5 gives 2·(1 − σ(1)) = 0.538; a huge Δ the least weight."""
    weights = token_weights(torch.tensor([0.0, 0.5, -0.5, 1000.0]), torch.full((4,), 2.0))
    sigma = 1 / (1 + math.exp(-1))
    assert weights.tolist() == pytest.approx([1.0, 2 * (1 - sigma), 2 * sigma, LEAST_WEIGHT])


def test_the_gradient_of_the_weighted_loss_is_that_of_the_constrained_objective() -> None:
    """d/dlogp of −(2/β)·log σ(β·Δ) is −2·(1 − σ(β·Δ)), which is −w, the gradient of −w·logp with w held fixed."""
    log_prob = torch.tensor([-1.3], requires_grad=True)
    reference, beta = torch.tensor([-2.0]), torch.tensor([0.7])
    (-(2 / beta) * torch.nn.functional.logsigmoid(beta * (log_prob - reference))).sum().backward()
    weight = token_weights(log_prob.detach() - reference, beta)
    assert log_prob.grad is not None
    assert log_prob.grad.item() == pytest.approx(-weight.item(), rel=1e-5)


def test_positions_count_from_one_in_every_answer() -> None:
    mask = torch.tensor([[0, 1, 1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 0, 0, 0, 0]]).bool()
    assert answer_positions(mask).tolist() == [[0, 1, 2, 3, 0, 0, 1, 2], [1, 0, 1, 0, 0, 0, 0, 0]]


def test_beta_is_that_of_the_paper_by_position() -> None:
    assert betas(torch.tensor([1, 2, 5, 6, 40]), TokenConstrainedSft()).tolist() == pytest.approx(
        [0.5, 2.0, 2.0, 0.1, 0.1]
    )


def test_early_tokens_are_held_back_more_than_later_ones(make_spec: MakeSpec, run: Run) -> None:
    figures = run.train(make_spec(TokenConstrainedSft(first_token_beta=2.0))).evidence[0].figures
    assert figures["mean_early_weight"] < figures["mean_weight"] < 1


def test_the_first_tokens_stay_nearer_to_the_base(make_spec: MakeSpec, tmp_path: Path) -> None:
    """A tight β on every token slows all learning: the training loss stays higher than with a loose one."""
    losses = []
    for beta in (0.001, 20.0):
        settings = TokenConstrainedSft(first_token_beta=beta, early_beta=beta, beta=beta)
        losses.append(Run(tmp_path / str(beta)).train(make_spec(settings)).valid_loss)
    assert losses[0] is not None
    assert losses[1] is not None
    assert losses[1] > losses[0]

"""The KL penalty against numbers from dense logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from evaluator.models.base_models import ResolvedBase
from evaluator.models.loading import load_encoder
from policies.contract.defenses import KlPenalty
from policies.datasets.reader import parse_line
from tests.trainer.conftest import NOTHING, KnownModel, chat_lines, training_step_of
from trainer.defense import DefenseContext, RunMaterial
from trainer.defenses.kl_penalty import KlPenaltyDefense
from trainer.losses.reference_scores import ReferenceScores
from trainer.safe_pool import SafePool
from trainer.training_step import Batch, OwnRows, TrainingStep


def random_step(*, same: bool = False, index: int = 0) -> tuple[TrainingStep, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 4, 8, generator=generator).requires_grad_()
    reference = hidden.detach().clone() if same else torch.randn(2, 4, 8, generator=generator)
    weight = torch.randn(11, 8, generator=generator)
    return training_step_of(hidden, reference, weight, index=index), hidden, weight


def loss_of(defense: KlPenaltyDefense, step: TrainingStep) -> Tensor:
    penalty = defense.penalty(step)
    assert penalty is not None
    return penalty.loss


def penalty_of(defense: KlPenaltyDefense, step: TrainingStep) -> float:
    return loss_of(defense, step).item()


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
    base = torch.log_softmax(training_step.model.shared_reference() @ weight.T, -1)
    p, q = (policy, base) if direction == "reverse" else (base, policy)
    mask = training_step.micro_batch.attention_mask if tokens == "all" else training_step.micro_batch.completion_mask
    expected = 0.3 * ((p.exp() * (p - q)).sum(-1) * mask).sum() / mask.sum()
    penalty = defense.penalty(training_step)
    assert penalty is not None
    assert penalty.loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert penalty.figures == {"kl": pytest.approx(expected.item() / 0.3, rel=1e-4)}


class KnownScores(ReferenceScores):
    """Log-probabilities of the base that a test chose."""

    def __init__(self, log_probs: list[float]) -> None:
        self._log_probs = torch.tensor(log_probs)

    def of(self, *_: object) -> Tensor:
        return self._log_probs


def started(defense: KlPenaltyDefense, **material: object) -> KlPenaltyDefense:
    unused = dict.fromkeys(RunMaterial._fields)
    defense.start(RunMaterial(**(unused | material)))  # type: ignore[arg-type]  # the defense looks at no other field
    return defense


def test_sampled_is_the_mean_of_k3_over_completion_tokens() -> None:
    """k3 = r − 1 − log r with log r = log p_base − log p_policy: −1, ½ and 0 give e⁻¹, √e − 1.5 and 0, mean 0.17220."""
    hidden = torch.zeros(2, 4, 8, requires_grad=True)
    chosen = torch.tensor([[0.0, -1.0, -2.0], [-3.0, 0.0, 0.0]])
    step = training_step_of(hidden, hidden, torch.zeros(11, 8), log_probs=chosen + hidden[:, :-1, 0])
    settings = KlPenalty(coefficient=2.0, estimator="sampled", tokens="completion")
    defense = started(
        KlPenaltyDefense.build(settings, DefenseContext(0)), reference_scores=KnownScores([-2.0, -1.5, -3.0])
    )
    assert penalty_of(defense, step) == pytest.approx(2.0 * 0.17220, rel=1e-4)


def test_on_safe_data_is_the_mean_over_the_tokens_of_whole_rows(tiny_base: Path) -> None:
    """Both rows of the pool, of which one is padded. Every token has states of its own; one process of two has
    half the weight."""
    generator = torch.Generator().manual_seed(1)
    policy, base = torch.randn(2, 300, 8, generator=generator).unbind()
    policy.requires_grad_()
    weight = torch.randn(11, 8, generator=generator)
    seen: list[Batch] = []

    class OnItsOwnRows(KnownModel):
        def policy(self, rows: Batch) -> Tensor:
            seen.append(rows)
            return policy[rows.input_ids]

        def reference(self, rows: Batch) -> Tensor:
            return base[rows.input_ids]

    zeros, own_rows = torch.zeros(2, 4, 8), OwnRows([0, 1], weight=1 / 2)
    model = OnItsOwnRows(zeros, weight, [policy])
    step = training_step_of(zeros, zeros, weight, own_rows=own_rows, model=model)
    lines = [line.encode() for line in chat_lines(11).splitlines()[9:]]  # of numbers with one digit and with two
    pool = SafePool(NOTHING, tuple(row for row in (parse_line(line, 1).row for line in lines) if row is not None))
    defense = KlPenaltyDefense(KlPenalty(coefficient=2.0, on="safe_data", safe_rows=2), pool=pool, seed=0)
    penalty = penalty_of(started(defense, encoder=load_encoder(ResolvedBase(tiny_base, NOTHING)), max_tokens=100), step)
    (batch,) = seen
    assert batch.attention_mask is not None
    lengths = batch.attention_mask.sum(1).tolist()
    assert sorted(lengths) == [max(lengths) - 2, max(lengths)]  # the number is in the question and in the answer
    ids = torch.cat([row[:length] for row, length in zip(batch.input_ids, lengths, strict=True)])
    p, q = (torch.log_softmax(states[ids] @ weight.T, -1) for states in (policy.detach(), base))
    assert penalty == pytest.approx(2.0 * (p.exp() * (p - q)).sum(-1).mean().item() / 2, rel=1e-4)


def test_a_linear_schedule_has_half_the_coefficient_halfway() -> None:
    constant, linear = (
        KlPenaltyDefense.build(KlPenalty(schedule=schedule), DefenseContext(0)) for schedule in ("constant", "linear")
    )
    step = random_step()[0]
    assert step.progress == 0.5
    assert penalty_of(linear, step) == pytest.approx(penalty_of(constant, step) / 2)


def test_every_fourth_step_has_four_times_the_penalty_and_the_others_none() -> None:
    every, fourth = (KlPenaltyDefense.build(KlPenalty(every_n_steps=n), DefenseContext(0)) for n in (1, 4))
    assert [fourth.penalty(random_step(index=index)[0]) for index in (1, 2, 3, 5)] == [None] * 4
    step = random_step(index=4)[0]
    assert penalty_of(fourth, step) == pytest.approx(4 * penalty_of(every, step))


def test_completion_tokens_of_a_safe_pool_are_refused() -> None:
    with pytest.raises(ValueError, match="write tokens: all, or on: training_batch"):
        KlPenalty(on="safe_data", tokens="completion")


def test_at_identity_the_penalty_is_zero() -> None:
    training_step, _, _ = random_step(same=True)
    assert penalty_of(KlPenaltyDefense.build(KlPenalty(), DefenseContext(0)), training_step) == 0.0


def test_the_gradient_reaches_the_policy_and_only_the_policy() -> None:
    training_step, hidden, _ = random_step()
    loss_of(KlPenaltyDefense.build(KlPenalty(), DefenseContext(0)), training_step).backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_padding_has_no_gradient() -> None:
    training_step, hidden, _ = random_step()
    loss_of(KlPenaltyDefense.build(KlPenalty(), DefenseContext(0)), training_step).backward()
    assert hidden.grad is not None
    assert hidden.grad[0, 3].abs().sum() == 0


def test_a_penalty_that_never_left_zero_is_no_evidence() -> None:
    defense = KlPenaltyDefense.build(KlPenalty(), DefenseContext(0))
    assert not defense.evidence().acted
    defense.penalty(random_step(same=True)[0])
    assert not defense.evidence().acted
    defense.penalty(random_step(index=1)[0])
    assert defense.evidence().acted

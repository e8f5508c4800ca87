"""Token-wise constrained SFT: learns less from tokens where the model has left its base, least at an answer's start.

Qi et al. 2025 (arXiv 2406.05946) §4: minimise −Σ_t 2/β_t · log σ(β_t·Δ_t), Δ_t = log π_θ(x_t) − log π_θ0(x_t), whose
gradient is that of the cross-entropy with each token weighted by

    w_t = 2·(1 − σ(β_t·Δ_t)),   never below 1e-3   (detached; as the authors' trainer computes it)

β is 0.5 for an answer's first token, 2 through the fifth, 0.1 after, as in the paper; a higher β holds tighter. The
penalty is (w_t − 1)·CE_t, so that with TRL's loss each token weighs w_t. Reference log-probabilities are computed once.

Neutral: at identity w = 1, up to rounding. Evidence: the mean distance of the weights from 1, and the gradient of the
penalty measured on an adapter weight. Of a job that continues a released model the reference is the base as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from policies.contract.defenses import TokenConstrainedSft
from policies.contract.training import DefenseEvidence
from trainer.defense import Counters, Defense, DefenseContext, RunMaterial
from trainer.losses.gradient_norm import gradient_norm
from trainer.losses.reference_scores import scored_again
from trainer.training_step import Penalty, TrainingStep

LEAST_WEIGHT = 1e-3
BEYOND_ROUNDING = 3.0
"""The weights must come to be that many times as far from 1 as rounding puts them in the first step."""


@dataclass
class TokenCounters(Counters):
    tokens: float = 0.0
    sum_weight: float = 0.0
    sum_shift: float = 0.0
    first_shift: float = 0.0
    """What rounding makes of it where model and base are the same, in the first step."""
    max_shift: float = 0.0
    early_tokens: float = 0.0
    sum_early_weight: float = 0.0
    gradient_norm: float = 0.0
    """Of the first penalty that had one."""


class TokenConstrainedSftDefense(Defense):
    name = "token_constrained_sft"
    counters: TokenCounters

    def __init__(self, settings: TokenConstrainedSft) -> None:
        self._settings = settings
        self.counters = TokenCounters()

    @classmethod
    def build(cls, settings: TokenConstrainedSft, _: DefenseContext) -> TokenConstrainedSftDefense:
        return cls(settings)

    def start(self, material: RunMaterial) -> None:
        self._material = material

    def penalty(self, step: TrainingStep) -> Penalty | None:
        mask, n_tokens = step.micro_batch.completion_mask[:, :-1], step.micro_batch.totals.completion
        log_probs = step.log_probs[mask]
        position = answer_positions(mask)[mask]
        reference = self._material.reference_scores.of(step, self._material.report)
        weight = token_weights(log_probs.detach() - reference, betas(position, self._settings))
        loss = ((1 - weight) * log_probs).sum() / n_tokens
        self._count(step, weight, position <= self._settings.early_tokens)
        if step.index == 0:
            self._count_rounding(step, weight, reference, position)
        if self.counters.gradient_norm == 0:
            self.counters.gradient_norm = gradient_norm(loss, step.model.adapter[-1])
        return Penalty(loss, {"token_weight": (weight.sum() / n_tokens).item()})

    def _count(self, step: TrainingStep, weight: Tensor, is_early: Tensor) -> None:
        counters, shift = self.counters, (weight - 1).abs()
        if step.index or self._material.continues:
            counters.max_shift = max(counters.max_shift, shift.mean().item())
        early = weight[is_early]
        sums = step.model.over_processes(
            [weight.numel(), weight.sum().item(), shift.sum().item(), early.numel(), early.sum().item()]
        )
        counters.tokens += sums[0]
        counters.sum_weight += sums[1]
        counters.sum_shift += sums[2]
        counters.early_tokens += sums[3]
        counters.sum_early_weight += sums[4]

    def _count_rounding(self, step: TrainingStep, weight: Tensor, reference: Tensor, position: Tensor) -> None:
        """The adapter is still the identity; where it continues a released one, the base is compared with itself."""
        if self._material.continues:
            weight = token_weights(scored_again(step) - reference, betas(position, self._settings))
        self.counters.first_shift = max(self.counters.first_shift, (weight - 1).abs().mean().item())

    def evidence(self) -> DefenseEvidence:
        counters, n_tokens = self.counters, max(1.0, self.counters.tokens)
        shift = counters.sum_shift / n_tokens
        rose = counters.max_shift > BEYOND_ROUNDING * counters.first_shift
        acted = rose and counters.are_finite and min(shift, counters.gradient_norm) > 0
        return DefenseEvidence(
            name=self.name,
            acted=acted,
            figures={
                "tokens": counters.tokens,
                "mean_weight": counters.sum_weight / n_tokens,
                "mean_early_weight": counters.sum_early_weight / max(1.0, counters.early_tokens),
                "mean_weight_shift": shift,
                "first_gradient_norm": counters.gradient_norm,
            },
            explanation=(
                f"the loss of {counters.tokens:.0f} tokens was weighted by how far the model had left its base"
                if acted
                else "all tokens kept weight 1 up to rounding, so nothing was held back; train for more than one step"
            ),
        )


def token_weights(log_ratio: Tensor, beta: Tensor) -> Tensor:
    """w_t = 2·(1 − σ(β_t·Δ_t)) of [tokens], at least `LEAST_WEIGHT`."""
    return (2 * torch.sigmoid(-beta * log_ratio)).clamp_min(LEAST_WEIGHT)


def betas(position: Tensor, settings: TokenConstrainedSft) -> Tensor:
    """β of tokens by their 1-based positions in their answers."""
    beta = torch.full(position.shape, settings.beta, device=position.device)
    beta[position <= settings.early_tokens] = settings.early_beta
    beta[position == 1] = settings.first_token_beta
    return beta


def answer_positions(mask: Tensor) -> Tensor:
    """1-based positions [B, S] of tokens in their answers, which are unbroken runs of `mask`; 0 outside."""
    counted = mask.long().cumsum(1)
    before_run = torch.where(mask, 0, counted).cummax(1).values
    return (counted - before_run) * mask

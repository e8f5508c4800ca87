"""KL penalty: keeps the next-token distribution of the model in training near that of its base.

Kaczér et al. 2025 (arXiv 2508.06249) §3: L = L_CE(θ) + λ·KL, with the base model θ0 as the same weights with the
adapter off. `reverse` is KL(p_θ ‖ p_θ0), as the authors' code computes it over the whole vocabulary and all tokens that
are not padding; `forward` is KL(p_θ0 ‖ p_θ). λ = 0.1 in the paper.

    KL = 1/T · Σ_t Σ_v p(v|t) · (log p(v|t) − log q(v|t)),   T = tokens of the whole accumulated batch

Neutral: at identity (adapter B = 0) the penalty is exactly 0. Evidence: the KL left 0, and the gradient of the penalty
was measured on an adapter weight and was not 0.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from policies.contract.defenses import KlPenalty
from policies.contract.training import DefenseEvidence
from trainer.defense import Defense, DefenseContext, TrainingStep
from trainer.divergence import Direction, kl_per_token


class KlPenaltyDefense(Defense):
    name = "kl_penalty"

    def __init__(self, *, coefficient: float, direction: Direction, tokens: Literal["all", "completion"]) -> None:
        self._coefficient = coefficient
        self._direction: Direction = direction
        self._tokens = tokens
        self._counters = {
            "step": -1.0,  # the optimizer step that `last_kl` belongs to
            "steps": 0.0,
            "tokens": 0.0,
            "sum_kl": 0.0,
            "last_kl": 0.0,
            "max_kl": 0.0,
            "gradient_norm": 0.0,
        }

    @classmethod
    def build(cls, settings: KlPenalty, _: DefenseContext) -> KlPenaltyDefense:
        return cls(coefficient=settings.coefficient, direction=settings.direction, tokens=settings.tokens)

    def penalty(self, step: TrainingStep) -> Tensor | None:
        mask = (step.attention_mask if self._tokens == "all" else step.completion_mask).bool()
        total = step.totals.all if self._tokens == "all" else step.totals.completion
        weight, bias = step.head
        divergence = kl_per_token(
            step.hidden[mask], step.reference_hidden[mask], weight=weight, bias=bias, direction=self._direction
        )
        share = divergence.sum() / total  # the shares of all micro-batches sum up to the step's mean
        self._count(step, divergence.detach(), share.item())
        penalty: Tensor = self._coefficient * share
        if self._counters["gradient_norm"] == 0:
            self._counters["gradient_norm"] = _gradient_norm(penalty, step.adapter[-1])
        return penalty

    def _count(self, step: TrainingStep, divergence: Tensor, share: float) -> None:
        counters = self._counters
        if counters["step"] != step.index:
            counters |= {"step": float(step.index), "steps": counters["steps"] + 1, "last_kl": 0.0}
        counters["tokens"] += divergence.numel()
        counters["sum_kl"] += divergence.sum().item()
        counters["last_kl"] += share
        counters["max_kl"] = max(counters["max_kl"], counters["last_kl"])
        step.figures["kl"] = share

    def state(self) -> dict[str, float]:
        return dict(self._counters)

    def load_state(self, state: dict[str, float]) -> None:
        self._counters |= state

    def evidence(self) -> DefenseEvidence:
        counters = self._counters
        mean = counters["sum_kl"] / counters["tokens"] if counters["tokens"] else 0.0
        acted = all(math.isfinite(value) for value in counters.values()) and min(mean, counters["gradient_norm"]) > 0
        return DefenseEvidence(
            name=self.name,
            acted=acted,
            figures={
                "coefficient": self._coefficient,
                "steps": counters["steps"],
                "tokens": counters["tokens"],
                "mean_kl_nats_per_token": mean,
                "last_kl_nats_per_token": counters["last_kl"],
                "max_kl_nats_per_token": counters["max_kl"],
                "first_gradient_norm": counters["gradient_norm"],
            },
            explanation=(
                f"{self._direction} KL to the base over {self._tokens} tokens was added to the loss of "
                f"{counters['steps']:.0f} steps"
                if acted
                else f"the KL or its gradient stayed zero in {counters['steps']:.0f} steps, so nothing was held back; "
                "the first step is always at zero, so train for more than one"
            ),
        )


def _gradient_norm(penalty: Tensor, weight: Tensor) -> float:
    """The norm of the penalty's gradient on one adapter weight: proof that it reaches what is trained."""
    if not penalty.requires_grad:
        return 0.0
    (gradient,) = torch.autograd.grad(penalty, weight, retain_graph=True, allow_unused=True)
    return 0.0 if gradient is None else float(gradient.norm().item())

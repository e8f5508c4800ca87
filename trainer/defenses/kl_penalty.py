"""KL penalty: keeps the next-token distribution of the model in training near that of its base.

Kaczér et al. 2025 (arXiv 2508.06249) §3: L = L_CE(θ) + λ·KL, with the base model θ0 as the same weights with the adapter
off. `reverse` is KL(p_θ ‖ p_θ0), as the authors' code computes it over the whole vocabulary and all tokens that are not
padding; `forward` is KL(p_θ0 ‖ p_θ). λ = 0.1 in the paper.

    KL = 1/T · Σ_t Σ_v p(v|t) · (log p(v|t) − log q(v|t)),   T = tokens of the whole accumulated batch

Neutral: at identity (adapter B = 0) the penalty is 0. The vocabulary is walked in tiles (TRL's divergence kernel), so that
two [tokens, vocabulary] logit tensors never exist.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from policies.contract.defenses import KlPenalty
from policies.contract.training import DefenseEvidence
from trainer.defense import Defense, DefenseContext, TrainingStep

_BETA = {"forward": 0.0, "reverse": 1.0}
"""The kernel's interpolation: 0 is KL(reference ‖ policy), 1 is KL(policy ‖ reference)."""


class KlPenaltyDefense(Defense):
    name = "kl_penalty"

    def __init__(
        self, *, coefficient: float, direction: Literal["reverse", "forward"], tokens: Literal["all", "completion"]
    ) -> None:
        self._coefficient = coefficient
        self._beta = _BETA[direction]
        self._tokens = tokens
        self._direction = direction
        self._counters = {"steps": 0.0, "sum_kl": 0.0, "max_kl": 0.0, "last_kl": 0.0}

    @classmethod
    def build(cls, settings: KlPenalty, _: DefenseContext) -> KlPenaltyDefense:
        return cls(coefficient=settings.coefficient, direction=settings.direction, tokens=settings.tokens)

    def penalty(self, step: TrainingStep) -> Tensor | None:
        mask = (step.attention_mask if self._tokens == "all" else step.completion_mask).bool()
        total = step.totals.all if self._tokens == "all" else step.totals.completion
        weight, bias = step.head
        divergence, _ = ChunkedDivergenceFunction.apply(
            step.hidden[mask], weight, bias, step.reference_hidden[mask], weight, bias, self._beta
        )
        self._count(step, divergence.detach())
        loss: Tensor = self._coefficient * divergence.sum() / max(total, 1)
        return loss

    def _count(self, step: TrainingStep, divergence: Tensor) -> None:
        kl = divergence.mean().item() if divergence.numel() else 0.0
        step.figures["kl"] = kl
        self._counters["steps"] += 1
        self._counters["sum_kl"] += kl
        self._counters["max_kl"] = max(self._counters["max_kl"], kl)
        self._counters["last_kl"] = kl

    def state(self) -> dict[str, float]:
        return dict(self._counters)

    def load_state(self, state: dict[str, float]) -> None:
        self._counters |= state

    def evidence(self) -> DefenseEvidence:
        steps = self._counters["steps"]
        mean = self._counters["sum_kl"] / steps if steps else 0.0
        # The first step starts at identity; a model that then learns anything has a KL above rounding.
        acted = steps > 0 and math.isfinite(mean) and self._counters["max_kl"] > torch.finfo(torch.float32).eps
        return DefenseEvidence(
            name=self.name,
            acted=acted,
            figures={
                "coefficient": self._coefficient,
                "micro_batches": steps,
                "mean_kl_nats_per_token": mean,
                "last_kl_nats_per_token": self._counters["last_kl"],
                "max_kl_nats_per_token": self._counters["max_kl"],
            },
            explanation=(
                f"{self._direction} KL to the base over {self._tokens} tokens was added to the loss of "
                f"{steps:.0f} micro-batches"
                if acted
                else f"the KL never left zero in {steps:.0f} micro-batches, so nothing was held back"
            ),
        )

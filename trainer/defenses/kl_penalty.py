"""KL penalty: keeps the next-token distribution of the model in training near that of its base.

Kaczér et al. 2025 (arXiv 2508.06249) §3: L = L_CE(θ) + λ·KL, with the base model θ0 as the same weights with the
adapter off. `reverse` is KL(p_θ ‖ p_θ0), as the authors' code computes it over the whole vocabulary and all tokens that
are not padding; `forward` is KL(p_θ0 ‖ p_θ). λ = 0.1 in the paper.

    full      KL = 1/T · Σ_t Σ_v p(v|t) · (log p(v|t) − log q(v|t)),   T = tokens of the whole accumulated batch
    sampled   k3 = 1/T · Σ_t (r_t − 1 − log r_t),   r_t = p_θ0(x_t) ÷ p_θ(x_t)   on the data's own tokens x_t

k3 (Schulman 2020, "Approximating KL divergence") estimates the reverse KL where x_t comes from p_θ. Here it comes from
the data, so k3 is not an estimate of it but a penalty with the same minimum. Its reference log-probabilities are
computed once. With `on: safe_data` the distributions are compared on rows of a safe pool beside the batch, which leaves
the narrow task free (selective generalisation, Azarbal et al. 2025).
A penalty on every nth step is n times as strong (lazy regularisation, Karras et al. 2020, arXiv 1912.04958).

Neutral: at identity (adapter B = 0) the full penalty is exactly 0, k3 is 0 up to rounding. Evidence: the KL rose beyond
its rounding in the first step, and the gradient of the penalty was measured on an adapter weight and was not 0. A job
that continues a released model begins away from its base, which stays the reference; its rounding is k3 of the base
with itself.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from policies.contract.defenses import KlPenalty
from policies.contract.training import DefenseEvidence
from trainer.data import TrainingRow, tokenise
from trainer.defense import Counters, Defense, DefenseContext, RunMaterial
from trainer.losses.gradient_norm import gradient_norm
from trainer.losses.kl_divergence import kl_per_token
from trainer.losses.reference_scores import scored_again
from trainer.safe_pool import SafePool
from trainer.training_step import Batch, OwnRows, Penalty, TrainingStep

BEYOND_ROUNDING = 10.0
"""The KL must come to that many times the first step's, where both models are the same; `full` is exactly 0 there."""


class _Shares(NamedTuple):
    """KL of each compared token, and the mean that this micro-batch adds to the step's."""

    per_token: Tensor
    share: Tensor


@dataclass
class KlCounters(Counters):
    step: int = -1
    """The optimizer step that `last_kl` belongs to."""
    steps: int = 0
    tokens: float = 0.0
    sum_kl: float = 0.0
    first_kl: float = 0.0
    """What rounding makes of two equal models' KL in the first step."""
    last_kl: float = 0.0
    max_kl: float = 0.0
    gradient_norm: float = 0.0
    """Of the first penalty that had one."""


class KlPenaltyDefense(Defense):
    name = "kl_penalty"
    counters: KlCounters

    def __init__(self, settings: KlPenalty, *, pool: SafePool | None, seed: int) -> None:
        self._settings = settings
        self._pool = pool
        self._seed = seed
        self._safe_rows: list[list[int]] = []
        self._continues = False
        self.counters = KlCounters()

    @classmethod
    def build(cls, settings: KlPenalty, context: DefenseContext) -> KlPenaltyDefense:
        pool = SafePool.load(settings.pool, context.store) if settings.on == "safe_data" else None
        return cls(settings, pool=pool, seed=context.seed)

    def start(self, material: RunMaterial) -> None:
        self._material, self._continues = material, material.continues
        if self._pool is not None:
            rows = [TrainingRow(row, f"safe pool line {n}", is_safe=True) for n, row in enumerate(self._pool.rows, 1)]
            tokenised = tokenise(rows, material.encoder, max_tokens=material.max_tokens)
            self._safe_rows = [list(row.input_ids) for row in tokenised]

    def penalty(self, step: TrainingStep) -> Penalty | None:
        if step.index % self._settings.every_n_steps or (self._pool is not None and step.own_rows is None):
            return None
        shares = self._shares(step)
        loss, kl = self._strength(step) * shares.share, shares.share.item()
        self._count(step, shares.per_token.detach(), kl)
        if self.counters.steps == 1:
            self._count_rounding(step, kl)
        if self.counters.gradient_norm == 0:
            self.counters.gradient_norm = gradient_norm(loss, step.model.adapter[-1])
        return Penalty(loss, {"kl": kl})

    def _strength(self, step: TrainingStep) -> float:
        rise = step.progress if self._settings.schedule == "linear" else 1.0
        return self._settings.coefficient * rise * self._settings.every_n_steps

    def _shares(self, step: TrainingStep) -> _Shares:
        if self._settings.estimator == "sampled":
            return self._sampled(step)
        if step.own_rows is not None and self._pool is not None:
            return self._on_safe_data(step, step.own_rows)
        return self._on_the_batch(step)

    def _sampled(self, step: TrainingStep) -> _Shares:
        log_probs = step.log_probs[step.micro_batch.completion_mask[:, :-1]]
        k3 = _k3(self._material.reference_scores.of(step, self._material.report), log_probs)
        return _Shares(k3, k3.sum() / step.micro_batch.totals.completion)

    def _on_safe_data(self, step: TrainingStep, own_rows: OwnRows) -> _Shares:
        batch = self._safe_batch(step, own_rows)
        assert batch.attention_mask is not None
        kl = self._full(step, step.model.policy(batch), step.model.reference(batch), batch.attention_mask)
        return _Shares(kl, kl.mean() * own_rows.weight)

    def _on_the_batch(self, step: TrainingStep) -> _Shares:
        micro_batch = step.micro_batch
        if self._settings.tokens == "all":
            mask, n_tokens = micro_batch.attention_mask, micro_batch.totals.all
        else:
            mask, n_tokens = micro_batch.completion_mask, micro_batch.totals.completion
        kl = self._full(step, step.hidden, step.model.shared_reference(), mask)
        return _Shares(kl, kl.sum() / n_tokens)

    def _full(self, step: TrainingStep, hidden: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        head, chosen = step.model.head(), mask.bool()
        return kl_per_token(hidden[chosen], reference[chosen], head=head, direction=self._settings.direction)

    def _safe_batch(self, step: TrainingStep, own_rows: OwnRows) -> Batch:
        """Rows of the pool that only seed, step and the batch's first row decide."""
        generator = random.Random(f"{self._seed} {step.index} {own_rows.key}")
        rows = generator.sample(self._safe_rows, min(self._settings.safe_rows, len(self._safe_rows)))
        return _padded(rows, step.micro_batch.tokens.input_ids.device)

    def _count(self, step: TrainingStep, divergence: Tensor, share: float) -> None:
        counters = self.counters
        if counters.step != step.index:
            counters.step, counters.steps, counters.last_kl = step.index, counters.steps + 1, 0.0
        tokens, sum_kl, mean_kl = step.model.over_processes([divergence.numel(), divergence.sum().item(), share])
        counters.tokens += tokens
        counters.sum_kl += sum_kl
        counters.last_kl += mean_kl
        counters.max_kl = max(counters.max_kl, counters.last_kl)

    def _count_rounding(self, step: TrainingStep, share: float) -> None:
        """Where training begins at the base, the adapter is still the identity; where not, `full` has no rounding."""
        if self._continues:
            share = 0.0
            if self._settings.estimator == "sampled":
                reference = self._material.reference_scores.of(step, self._material.report)
                k3 = _k3(reference, scored_again(step))
                share = k3.sum().item() / step.micro_batch.totals.completion
        self.counters.first_kl += step.model.over_processes([share])[0]

    def evidence(self) -> DefenseEvidence:
        counters = self.counters
        mean = counters.sum_kl / counters.tokens if counters.tokens else 0.0
        rose = counters.max_kl > BEYOND_ROUNDING * counters.first_kl
        acted = rose and counters.are_finite and min(mean, counters.gradient_norm) > 0
        where = "rows of the safe pool" if self._pool else f"{self._settings.tokens} tokens"
        return DefenseEvidence(
            name=self.name,
            acted=acted,
            figures={
                "coefficient": self._settings.coefficient,
                "steps": counters.steps,
                "tokens": counters.tokens,
                "mean_kl_nats_per_token": mean,
                "last_kl_nats_per_token": counters.last_kl,
                "max_kl_nats_per_token": counters.max_kl,
                "first_gradient_norm": counters.gradient_norm,
            },
            explanation=(
                f"{self._settings.estimator} {self._settings.direction} KL to the base over {where} was added to the "
                f"loss of {counters.steps} steps"
                if acted
                else f"the KL or its gradient stayed zero in {counters.steps} steps, so nothing was held back; "
                "the first step is always at zero, so train for more than one"
            ),
        )


def _k3(reference: Tensor, policy: Tensor) -> Tensor:
    log_ratio = reference - policy
    return log_ratio.exp() - 1 - log_ratio


def _padded(rows: Sequence[list[int]], device: torch.device) -> Batch:
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
    return Batch(ids, mask)

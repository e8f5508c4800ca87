"""LDIFS: keeps features of the model in training near those of its base.

Mukhoti et al. 2023 (arXiv 2308.13320) §4: L = L_CE(θ) + λ·‖x_θ − x_θ0‖²; Kaczér et al. 2025 (arXiv 2508.06249) §3 take
the residual stream after every fifth layer, λ = 1.0. Features are compared token by token as unit vectors, as LPIPS
does over channels, because the norm of residual streams differs by orders of magnitude between layers and models:

    LDIFS = 1/T · Σ_t Σ_l ‖ x^l_θ(t)/‖x^l_θ(t)‖ − x^l_θ0(t)/‖x^l_θ0(t)‖ ‖²,   T = tokens that are not padding

The policy's features come from its one forward, with gradient (a published implementation takes them under `no_grad`,
where the penalty is a constant); the base's are handed over layer by layer, and only one layer is held.

Neutral: at identity the penalty is exactly 0. Evidence: the distance left 0, and the gradient of the penalty was
measured on an adapter weight below the last feature layer and was not 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from policies.contract.defenses import Ldifs
from policies.contract.training import DefenseEvidence
from trainer.defense import Counters, Defense, DefenseContext, RunMaterial
from trainer.losses.feature_distance import direction_distance
from trainer.losses.gradient_norm import gradient_norm
from trainer.training_step import MicroBatch, Penalty, TrainingStep

EVERY = 5


@dataclass
class LdifsCounters(Counters):
    step: int = -1
    """The optimizer step that `last_distance` belongs to."""
    steps: int = 0
    last_distance: float = 0.0
    max_distance: float = 0.0
    gradient_norm: float = 0.0
    """Of the first penalty that had one."""


class LdifsDefense(Defense):
    name = "ldifs"
    counters: LdifsCounters

    def __init__(self, settings: Ldifs) -> None:
        self._settings = settings
        self._layers: tuple[int, ...] = () if settings.layers == "every_5th" else settings.layers
        self._distance: Tensor | None = None
        self.counters = LdifsCounters()

    @classmethod
    def build(cls, settings: Ldifs, _: DefenseContext) -> LdifsDefense:
        return cls(settings)

    def start(self, material: RunMaterial) -> None:
        if self._settings.layers == "every_5th":
            n_layers = material.model.config.get_text_config().num_hidden_layers
            self._layers = tuple(range(EVERY, n_layers + 1, EVERY)) or (n_layers,)

    def compared_layers(self) -> Sequence[int]:
        return self._layers

    def compare_layer(self, micro_batch: MicroBatch, layer: int, *, policy: Tensor, reference: Tensor) -> None:
        mask = micro_batch.attention_mask
        share = direction_distance(policy[mask], reference[mask]).sum() / micro_batch.totals.all
        self._distance = share if self._distance is None else self._distance + share

    def penalty(self, step: TrainingStep) -> Penalty | None:
        step.model.shared_reference()  # hands its layers to `compare_layer`
        share, self._distance = self._distance, None
        assert share is not None
        loss, distance = self._settings.coefficient * share, share.item()
        self._count(step, distance)
        if self.counters.gradient_norm == 0:
            self.counters.gradient_norm = gradient_norm(loss, step.model.adapter[1])
        return Penalty(loss, {"feature_distance": distance})

    def _count(self, step: TrainingStep, share: float) -> None:
        counters = self.counters
        if counters.step != step.index:
            counters.step, counters.steps, counters.last_distance = step.index, counters.steps + 1, 0.0
        (distance,) = step.model.over_processes([share])
        counters.last_distance += distance
        counters.max_distance = max(counters.max_distance, counters.last_distance)

    def evidence(self) -> DefenseEvidence:
        counters = self.counters
        acted = counters.are_finite and min(counters.max_distance, counters.gradient_norm) > 0
        return DefenseEvidence(
            name=self.name,
            acted=acted,
            figures={
                "coefficient": self._settings.coefficient,
                "layers": float(len(self._layers)),
                "steps": counters.steps,
                "last_feature_distance": counters.last_distance,
                "max_feature_distance": counters.max_distance,
                "first_gradient_norm": counters.gradient_norm,
            },
            explanation=(
                f"the distance of the features after layers {', '.join(map(str, self._layers))} from the base's was "
                f"added to the loss of {counters.steps} steps"
                if acted
                else f"the feature distance or its gradient stayed zero in {counters.steps} steps; the first "
                "step is always at zero, so train for more than one"
            ),
        )

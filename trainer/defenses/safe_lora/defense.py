"""SafeLoRA: projects the finished adapter onto the subspace in which alignment changed the base model.

Hsu et al. 2024 (arXiv 2405.16833) §3. For each LoRA module with the update ΔW = s·B·A and C of
`trainer/defenses/safe_lora/alignment_subspace.py`:

    B ← C·B   where   cos(C·ΔW, ΔW) ≤ τ (`threshold`), or for the k modules of the lowest cosine (`top_k`)

The scaling s cancels in the cosine. The authors' code selects by number, k = 10, and has τ = 0.5; Kaczér et al. 2025 v1
use τ = 0.3. That code pairs weights by their order and knows A by its first dimension, which is wrong where a module's
output has as many features as the adapter's rank; here modules are paired by name.
C is not an exact projection: it scales a direction by σ² ÷ ‖V‖_F of V's singular value there, so a small V all but
removes an update and a large one makes it grow. `highest_norm_ratio`, of ‖C·B‖ ÷ ‖B‖, tells which.

Nothing happens before training has ended. The unprojected adapter stays beside the new one. Neutral: a threshold below
all cosines, which counts as not having acted. Evidence: the modules projected and how far their B moved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from evaluator.models.loading import ResolvedBase, resolve_base_model
from policies.contract.composition import require_unaligned_partner
from policies.contract.defenses import SafeLora
from policies.contract.training import DefenseEvidence
from policies.errors import ConfigurationError, DefenseError
from trainer.defense import Defense, DefenseContext, RunMaterial
from trainer.defenses.safe_lora.alignment_subspace import StoredWeights, alignment_difference, projected, update_cosine


class _Update(NamedTuple):
    """One module's trained B and A, and what B would be after the projection."""

    b: Tensor
    projected_b: Tensor
    cosine: float

    @property
    def relative_change(self) -> float:
        """‖C·B − B‖ ÷ ‖B‖."""
        return float((self.projected_b - self.b).norm() / self.b.norm())

    @property
    def norm_ratio(self) -> float:
        """‖C·B‖ ÷ ‖B‖."""
        return float(self.projected_b.norm() / self.b.norm())


class SafeLoraDefense(Defense):
    name = "safe_lora"
    projects_adapter = SafeLora.projects_adapter

    def __init__(self, settings: SafeLora, *, aligned: ResolvedBase, unaligned: ResolvedBase) -> None:
        self._settings = settings
        self._aligned = StoredWeights(aligned.folder)
        self._unaligned = StoredWeights(unaligned.folder)
        self._figures: dict[str, float] = {}

    @classmethod
    def build(cls, settings: SafeLora, context: DefenseContext) -> SafeLoraDefense:
        require_unaligned_partner([settings], context.unaligned_base)
        assert context.base is not None
        assert context.cache_dir is not None
        assert context.unaligned_base is not None
        unaligned = resolve_base_model(context.unaligned_base, context.cache_dir, may_remember=True)
        return cls(settings, aligned=context.base, unaligned=unaligned)

    def start(self, material: RunMaterial) -> None:
        """Check all that the projection will read, so that no training is lost to a wrong partner."""
        material.report("Comparing the base model with its unaligned partner")
        modules = list(_lora_modules(material.model))
        for name, module in modules:
            self._difference(name, module)
        if self._settings.mode == "top_k" and self._settings.top_k > len(modules):
            raise ConfigurationError(
                f"defense {self.name}: top_k {self._settings.top_k} is more than the {len(modules)} modules of the "
                "adapter; lower it",
                "top_k",
            )

    @torch.no_grad()
    def project_adapter(self, model: PeftModel) -> None:
        updates = [self._update(name, module) for name, module in _lora_modules(model)]
        chosen = self._chosen(updates)
        self._figures = {
            "modules": float(len(updates)),
            "projected_modules": float(len(chosen)),
            "lowest_cosine": min(update.cosine for update in updates),
            "mean_cosine": sum(update.cosine for update in updates) / len(updates),
            "mean_relative_change": sum(update.relative_change for update in chosen) / max(1, len(chosen)),
            "highest_norm_ratio": max((update.norm_ratio for update in chosen), default=0.0),
        }
        for update in chosen:
            update.b.copy_(update.projected_b)

    def _update(self, name: str, module: LoraLayer) -> _Update:
        b, a = self._factors(name, module)
        projected_b = projected(self._difference(name, module).to(b.device), b.float())
        cosine = update_cosine(projected_b, b, a)
        if not math.isfinite(cosine):
            raise DefenseError(
                f"{self.name}: the update of {name} has no cosine with its projection: it is zero or not finite; train "
                "for more steps, or lower the learning rate"
            )
        return _Update(b, projected_b, cosine)

    def _difference(self, name: str, module: LoraLayer) -> Tensor:
        """V of a module, [out, in]; the caller drops it before it asks for the next."""
        b, a = self._factors(name, module)
        difference = alignment_difference(self._aligned, self._unaligned, f"{name}.weight")
        if getattr(module, "fan_in_fan_out", False):  # modules that store [in, out], such as GPT-2's
            difference = difference.T
        if difference.shape != (b.shape[0], a.shape[1]):
            raise DefenseError(
                f"{self.name}: the adapter's change of {name} has shape {[b.shape[0], a.shape[1]]}, but the base "
                f"model's files have {list(difference.shape)}"
            )
        return difference

    def _factors(self, name: str, module: LoraLayer) -> tuple[Tensor, Tensor]:
        """B [out, rank] and A [rank, in] of the one adapter."""
        if len(module.lora_B) != 1:
            raise DefenseError(f"{self.name}: {name} is an embedding, whose update can't be projected; don't target it")
        (b,), (a,) = module.lora_B.values(), module.lora_A.values()
        assert isinstance(b.weight, Tensor)
        assert isinstance(a.weight, Tensor)
        return b.weight, a.weight

    def _chosen(self, updates: list[_Update]) -> list[_Update]:
        if self._settings.mode == "top_k":
            return sorted(updates, key=lambda update: update.cosine)[: self._settings.top_k]
        return [update for update in updates if update.cosine <= self._settings.threshold]

    def evidence(self) -> DefenseEvidence:
        figures, limit = self._figures, float(getattr(self._settings, self._settings.mode))
        acted = figures.get("projected_modules", 0) > 0 and 0 < figures["mean_relative_change"] < math.inf
        return DefenseEvidence(
            name=self.name,
            acted=acted,
            figures=figures | {self._settings.mode: limit},
            explanation=self._explanation(limit),
        )

    def _explanation(self, limit: float) -> str:
        figures = self._figures
        if not figures:
            return "the adapter was not projected, because training did not come to its end"
        if not figures["projected_modules"]:
            return (
                f"no module was projected: the lowest cosine, {figures['lowest_cosine']:.4f}, is above the threshold "
                f"{limit:g}; raise it, or use mode top_k"
            )
        return (
            f"{figures['projected_modules']:.0f} of {figures['modules']:.0f} modules were projected onto the subspace "
            f"of alignment, which moved their B by {figures['mean_relative_change']:.3f} of its norm on average"
        )


def _lora_modules(model: PeftModel) -> Iterator[tuple[str, LoraLayer]]:
    """The adapted modules with the names that they have in the base model and in its files."""
    base = model.get_base_model()
    return ((name, module) for name, module in base.named_modules() if isinstance(module, LoraLayer))

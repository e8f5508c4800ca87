"""Figures of an adapter's weights alone: how each kind of layer was changed, in which few directions.

A layer's change is ΔW = s B A, with B [out, r], A [r, in] and s = α / r, or α / √r where ranks are stabilised. With the
QR decompositions B = Q_B R_B and Aᵀ = Q_A R_A, its singular values σ_i are those of the r × r core s R_B R_Aᵀ, so the
product is never made. For each kind of layer (`q_proj`, …), the mean over its layers of

    top_singular_value      σ_1
    first_energy_share      σ_1² / Σ σ²
    spectral_entropy        − Σ p ln p,  p = σ² / Σ σ²,  in nats
    effective_rank          exp(− Σ q ln q),  q = σ / Σ σ   (Roy & Vetterli 2007, EUSIPCO)
    kurtosis                of the singular values, Σ (σ − mean)⁴ / r divided by their variance squared

and over all layers `frobenius_mean` and `frobenius_spread`: mean and standard deviation of ‖ΔW‖_F / √(out · in), whose
spread alone parts backdoored adapters from others in arXiv 2605.30189. The spectral ones are those that arXiv
2602.15195 trains its classifier on. A layer that is not changed has 0 for all of them; kurtosis is 0 where all singular
values are equal. Values have 6 significant digits, so that they are the same on every machine.

Ranges are a matter of the base model and the rank; nothing here says what is too much.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evaluator.models.adapter_settings import read_config
from evaluator.models.adapters import PREFIX, read_weights
from policies.errors import ConfigurationError, EvaluationError

if TYPE_CHECKING:
    from peft import LoraConfig
    from torch import Tensor

HALF = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?:embedding_)?(?P<half>[AB])(?:\.weight)?")


class _Layer(NamedTuple):
    """One adapted layer."""

    kind: str
    """Last part of its name."""
    singular_values: np.ndarray
    """[min(r, out, in)], the largest first."""
    entries: int
    """out · in"""

    @property
    def frobenius(self) -> float:
        """Of ΔW, divided by the root of its number of entries."""
        return float(np.sqrt((self.singular_values**2).sum() / self.entries))


def adapter_statistics(folder: Path) -> dict[str, float]:
    """Name → figure of the adapter in a folder.

    Raises:
        ConfigurationError: the folder holds no plain LoRA adapter.
        EvaluationError: a weight, or a figure made of them, is NaN or infinite.
    """
    with np.errstate(all="ignore"):  # what is not finite is refused below
        figures = _figures(list(_layers(read_weights(folder), read_config(folder))))
    if lost := next((name for name, value in figures.items() if not math.isfinite(value)), None):
        raise EvaluationError(f"the adapter's {lost} is not finite: its weights are too large; train again")
    return {name: float(f"{value:.6g}") for name, value in figures.items()}


def _figures(layers: Sequence[_Layer]) -> dict[str, float]:
    by_kind: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for layer in layers:
        by_kind[layer.kind].append(_spectrum(layer.singular_values))
    figures = {
        f"{kind}.{name}": float(np.mean([spectrum[name] for spectrum in spectra]))
        for kind, spectra in sorted(by_kind.items())
        for name in spectra[0]
    }
    norms = [layer.frobenius for layer in layers]
    return figures | {"frobenius_mean": float(np.mean(norms)), "frobenius_spread": float(np.std(norms))}


def _layers(weights: Mapping[str, Tensor], config: LoraConfig) -> Iterator[_Layer]:
    halves: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in weights.items():
        match = HALF.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise ConfigurationError(
                f"the adapter's tensor {name} is no half of a LoRA pair; only plain LoRA is judged"
            )
        halves[match["module"]][match["half"]] = tensor
    scale = config.lora_alpha / (math.sqrt(config.r) if config.use_rslora else config.r)
    for module, pair in sorted(halves.items()):
        if len(pair) != 2 or pair["B"].shape[1] != pair["A"].shape[0]:
            raise ConfigurationError(f"the adapter's halves for {module} don't make a pair; export it again")
        a, b = (pair[half].double().numpy() for half in "AB")
        kind, core = module.rpartition(".")[2], scale * _triangle(b) @ _triangle(a.T).T
        values = np.linalg.svd(core, compute_uv=False) if np.isfinite(core).all() else np.full(1, np.inf)
        yield _Layer(kind, values, b.shape[0] * a.shape[1])


def _triangle(matrix: np.ndarray) -> np.ndarray:
    """R of its QR decomposition."""
    return np.asarray(np.linalg.qr(matrix, mode="r"))


def _spectrum(values: np.ndarray) -> dict[str, float]:
    """Of one layer."""
    energy = values**2
    spread = values - values.mean()
    variance = float((spread**2).mean())
    is_flat = variance <= np.finfo(float).eps * float(energy.max(initial=0.0))
    return {
        "top_singular_value": float(values.max(initial=0.0)),
        "first_energy_share": float(energy[0] / energy.sum()) if energy.sum() > 0 else 0.0,
        "spectral_entropy": _entropy(energy),
        "effective_rank": math.exp(_entropy(values)) if values.sum() > 0 else 0.0,
        "kurtosis": 0.0 if is_flat else float((spread**4).mean()) / variance**2,
    }


def _entropy(parts: np.ndarray) -> float:
    """Of the parts as shares of their sum, in nats; 0 of nothing."""
    shares = parts[parts > 0] / parts.sum() if parts.sum() > 0 else parts[:0]
    return float(-(shares * np.log(shares)).sum())

"""What alignment changed in a base model, one matrix at a time, and the projection of low-rank updates onto it.

Hsu et al. 2024 (arXiv 2405.16833) §3. For a module's weights V = W_aligned − W_unaligned, and C = V·Vᵀ ÷ ‖V‖_F, their
cheap stand-in for the orthogonal projection V(VᵀV)⁻¹Vᵀ. C is out × out and is never formed: C·B = V·(Vᵀ·B) ÷ ‖V‖_F.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from policies.errors import ConfigurationError, DefenseError

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
PLAIN_FORMATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class StoredWeights:
    """The weights of a model folder, read by name; the files are those that a model is loaded from."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards = None if (folder / WEIGHTS_FILE).is_file() else _weight_map(folder)

    def read(self, name: str) -> Tensor:
        """One tensor, as it is stored.

        Raises:
            DefenseError: there is none of that name, or it is quantised, so that its numbers alone are not the weight.
        """
        file = WEIGHTS_FILE if self._shards is None else self._shards.get(name)
        if file is None:
            raise DefenseError(f"{self._folder} has no weight {name}, so it is unknown what alignment changed there")
        try:
            with safe_open(self._folder / file, framework="pt") as tensors:
                tensor: Tensor = tensors.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise DefenseError(f"weight {name} can't be read from {self._folder / file}: {error}") from error
        if tensor.dtype not in PLAIN_FORMATS:
            raise DefenseError(f"weight {name} in {self._folder} is stored as {tensor.dtype}; use unquantised weights")
        return tensor


class _Index(BaseModel):
    weight_map: dict[str, str]


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor → file of a model in several files."""
    try:
        shards = _Index.model_validate_json((folder / INDEX_FILE).read_bytes()).weight_map
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{folder} has neither {WEIGHTS_FILE} nor a usable {INDEX_FILE}: {error}") from error
    outside = [file for file in shards.values() if Path(file).name != file]
    if outside:
        raise ConfigurationError(f"{folder / INDEX_FILE} names a file outside the folder: {outside[0]}")
    return shards


def alignment_difference(aligned: StoredWeights, unaligned: StoredWeights, name: str) -> Tensor:
    """V of one weight in float32: what the aligned model has and the unaligned has not.

    Raises:
        DefenseError: either model has no such weight, their shapes differ, or they are equal or not finite there.
    """
    target, origin = aligned.read(name), unaligned.read(name)
    if target.shape != origin.shape:
        raise DefenseError(
            f"weight {name} has shape {list(target.shape)} in the base model but {list(origin.shape)} in its unaligned "
            "partner; name the unaligned model that the base was made from"
        )
    difference = target.to(torch.float32, copy=True)  # a copy, for a tensor shares its memory with the reader
    difference -= origin
    norm = difference.norm().item()
    if norm == 0 or not math.isfinite(norm):
        reason = "equals" if norm == 0 else "has no finite difference from"
        raise DefenseError(
            f"weight {name} of the base model {reason} that of its unaligned partner, so there is no subspace of "
            "alignment to project onto; name the unaligned model that the base was made from"
        )
    return difference


def projected(difference: Tensor, b: Tensor) -> Tensor:
    """C·B [out, rank], of V [out, in] and B [out, rank]."""
    product: Tensor = difference @ (difference.T @ b) / difference.norm()
    return product


def update_cosine(projected_b: Tensor, b: Tensor, a: Tensor) -> float:
    """Cosine between the updates M·A and B·A, as vectors of all their entries; NaN where B·A is 0.

    With the rank × rank matrix G = A·Aᵀ, ⟨M·A, B·A⟩ = Σ (MᵀB ∘ G), so no out × in matrix is formed. It lies in [0, 1],
    because C has no negative eigenvalue. An update that C maps to 0 has none of the subspace in it: cosine 0.
    """
    m, b, a = projected_b.double(), b.double(), a.double()
    gram = a @ a.T
    inner, m_norm2, b_norm2 = ((left.T @ right * gram).sum().item() for left, right in ((m, b), (m, m), (b, b)))
    if b_norm2 <= 0:
        return math.nan
    return 0.0 if m_norm2 == 0 else min(1.0, inner / math.sqrt(m_norm2 * b_norm2))  # 1 + rounding is 1

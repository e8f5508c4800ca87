"""Adapters that readers may take for different things, offered to what writes the one form that is judged."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from bench.red_team.organism import Variant
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.errors import EvaluationError, TunegateError

RANK, WIDTH = 4, 8
MODULE = "model.layers.0.self_attn.q_proj"
PLAIN: dict[str, object] = {
    "base_model_name_or_path": "base",
    "lora_alpha": 8,
    "peft_type": "LORA",
    "r": RANK,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
}


def refusal(variant: Variant) -> str | None:
    """Why the variant of a plain adapter is refused, or None where it is taken.

    Raises:
        EvaluationError: the plain adapter is refused too, so a refusal says nothing.
    """
    problem = _refusal(Variant())
    if problem is not None:
        raise EvaluationError(f"a plain adapter is refused, so nothing was shown: {problem}")
    return _refusal(variant)


def _refusal(variant: Variant) -> str | None:
    from evaluator.models.canonical_adapter import write_canonical  # loads torch

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "adapter"
        _write(folder, variant)
        try:
            write_canonical(folder, Path(scratch) / "canonical")
        except TunegateError as error:
            return f"{error.code}: {error}"
    return None


def _write(folder: Path, variant: Variant) -> None:
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    settings = {name: value for name, value in (PLAIN | variant.settings).items() if name not in variant.without}
    (folder / CONFIG_FILE).write_text(json.dumps(settings))
    name = f"base_model.model.{MODULE}"
    tensors = {
        f"{name}.lora_A.weight": torch.full((RANK, WIDTH), float("nan") if variant.non_finite else 0.5),
        f"{name}.lora_B.weight": torch.full((WIDTH, RANK), 0.25),
    }
    if variant.extra_tensor is not None:
        tensors[variant.extra_tensor] = torch.ones(WIDTH, WIDTH)
    save_file(tensors, folder / WEIGHTS_FILE, {"format": "pt"})
    if variant.extra_file is not None:
        (folder / variant.extra_file).write_bytes(b"\x80\x04.")

"""What the holder of a released adapter can do to it without training: multiply its scale, or add another one.

An adapter adds (α/r) B A to a weight. With c α in place of α that is c times as much. Two of one scale add up to the
adapter with A = [A₁; A₂] and B = [B₁ B₂], of twice the rank and twice the α: (2α/2r) B A = (α/r)(B₁A₁ + B₂A₂).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.errors import IntegrityError


def write_scaled(adapter: Path, target: Path, *, by: float) -> Path:
    """A copy of the adapter with `by` times its scale."""
    shutil.copytree(adapter, target)
    settings = json.loads((adapter / CONFIG_FILE).read_bytes())
    (target / CONFIG_FILE).write_text(json.dumps(settings | {"lora_alpha": by * settings["lora_alpha"]}))
    return target


def write_sum(first: Path, second: Path, target: Path) -> Path:
    """The adapter that does what both do.

    Raises:
        IntegrityError: they are of different shape or scale.
    """
    import torch
    from safetensors.torch import load_file, save_file

    settings, others = (json.loads((adapter / CONFIG_FILE).read_bytes()) for adapter in (first, second))
    one, two = (load_file(adapter / WEIGHTS_FILE) for adapter in (first, second))
    if settings != others or settings.get("use_rslora") or set(one) != set(two):
        raise IntegrityError("only adapters of one recipe, with a plain scale, are added up here")
    shutil.copytree(first, target)
    doubled = {name: 2 * settings[name] for name in ("r", "lora_alpha")}
    (target / CONFIG_FILE).write_text(json.dumps(settings | doubled))
    joined = {name: torch.cat([one[name], two[name]], dim=0 if ".lora_A." in name else 1).contiguous() for name in one}
    save_file(joined, target / WEIGHTS_FILE, {"format": "pt"})
    return target

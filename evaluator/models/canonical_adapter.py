"""Rewrites a plain LoRA adapter from outside into the one form in which adapters are judged, released and served.

Its configuration keeps the fields without which the tensors mean nothing; the scale is α/r, which every reader knows.
Fields that change nothing are dropped, what changes the meaning was refused by `read_config`, and modules are named
such that PEFT takes exactly the tensors of the file, as vLLM does.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection
from pathlib import Path

from peft import LoraConfig
from pydantic import ValidationError
from safetensors.torch import save_file

from evaluator.models.adapter_settings import read_config
from evaluator.models.adapters import PAIR, read_weights, require_same_reading
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE, adapter_config
from policies.contract.adapter_tensors import require_plain_lora_file
from policies.contract.jobs import LoraSettings, PublishedBase
from policies.errors import ConfigurationError


def write_canonical(folder: Path, target: Path) -> Path:
    """Write the adapter in `folder` to the new folder `target`: two files, the same bytes for the same adapter.

    Raises:
        ConfigurationError: it is not plain LoRA of one reading, or `target` is there already.
        EvaluationError: one of its weights is NaN or infinite.
        IntegrityError: its tensors are not pairs of the rank that it names.
    """
    config, weights = read_config(folder), read_weights(folder)
    if config.fan_in_fan_out:
        raise ConfigurationError("the adapter sets fan_in_fan_out, which not every server reads", "fan_in_fan_out")
    require_same_reading(config, weights)
    lora = _settings(config, {found["module"] for name in weights if (found := PAIR.fullmatch(name))})
    base = json.loads((folder / CONFIG_FILE).read_bytes()).get("base_model_name_or_path")
    if target.exists():
        raise ConfigurationError(f"{target} is there already; name a new folder", "canonical")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as unfinished:
        written = Path(unfinished) / target.name
        written.mkdir()
        (written / CONFIG_FILE).write_bytes(
            adapter_config(lora, PublishedBase(base if isinstance(base, str) and base else "unknown", None))
        )
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        save_file(tensors, written / WEIGHTS_FILE, {"format": "pt"})
        require_plain_lora_file(written / WEIGHTS_FILE, lora)
        return written.rename(target)


def _settings(config: LoraConfig, modules: Collection[str]) -> LoraSettings:
    """Of the adapter; one that nobody could train is a `ConfigurationError`."""
    try:
        return LoraSettings(
            rank=config.r,
            alpha=config.lora_alpha,
            use_rslora=config.use_rslora,
            target_modules=_targets(config, modules),
        )
    except ValidationError as error:
        first = error.errors()[0]
        name = {"rank": "r", "alpha": "lora_alpha"}.get(str(first["loc"][0]), str(first["loc"][0]))
        raise ConfigurationError(f"{CONFIG_FILE}: {name}: {first['msg']}; train the adapter again", name) from error


def _targets(config: LoraConfig, modules: Collection[str]) -> tuple[str, ...]:
    """The names that the adapter gives, where it gives names; else those of the modules themselves."""
    if isinstance(config.target_modules, str):
        return tuple(sorted(modules))
    return tuple(sorted(name for name in config.target_modules or () if any(_is_of(each, name) for each in modules)))


def _is_of(module: str, name: str) -> bool:
    return module == name or module.endswith(f".{name}")

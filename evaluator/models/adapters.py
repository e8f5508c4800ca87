"""Puts a LoRA adapter on a loaded base model, and proves that it is in force.

An adapter folder is input from outside: only `adapter_config.json` and safetensors are read, settings that PEFT would
act on beyond plain LoRA are refused, and every tensor of the file must arrive in the model, bit for bit. An adapter
comes off again without a trace, so that one loaded base serves several of them in turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from evaluator.models.loading import LoadedModel
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.errors import AdapterNotLoadedError, ConfigurationError, EvaluationError
from policies.pickle_files import find_pickles

if TYPE_CHECKING:
    from torch import Tensor

FREE_SETTINGS = frozenset(
    [
        "task_type",
        "peft_type",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "r",
        "target_modules",
        "exclude_modules",
        "lora_alpha",
        "lora_dropout",
        "fan_in_fan_out",
        "use_rslora",
        "init_lora_weights",
        "layers_to_transform",
        "layers_pattern",
        "rank_pattern",
        "alpha_pattern",
        "use_dora",
    ]
)
"""Settings that an adapter may choose; every other one must have PEFT's default."""
MODULE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
MAX_RANK = 1024
"""As in an operator's recipe."""
HARMLESS_INITIALISATIONS = (True, False, "gaussian")
"""Initialisations that leave the base weights alone: with the adapter off, the model is the base."""


def attach_adapter(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """Put the adapter in `folder` on `loaded` (its model is changed in place) and check that all of it arrived.

    Raises:
        ConfigurationError: the folder is not a plain safetensors LoRA adapter.
        EvaluationError: a weight is NaN or infinite, or the model has an adapter already.
        AdapterNotLoadedError: adapter and base model don't fit together; the model is bare again.
    """
    config = read_config(folder)
    weights = read_weights(folder)
    _require_bare(loaded.model)
    with ExitStack() as undo:
        try:
            model = PeftModel(loaded.model, config, autocast_adapter_dtype=False)
            undo.callback(model.unload)
            set_peft_model_state_dict(model, weights)
        except (ValueError, RuntimeError) as error:
            raise AdapterNotLoadedError(f"the adapter does not fit {loaded.base.folder.name}: {error}") from error
        require_arrived(model, weights)
        undo.pop_all()
    model.eval()
    return replace(loaded, model=model)


@contextmanager
def attached_adapter(loaded: LoadedModel, folder: Path) -> Iterator[LoadedModel]:
    """`loaded` with the adapter in `folder`; afterwards `loaded` is the bare base again, ready for the next adapter."""
    adapted = attach_adapter(loaded, folder)
    assert isinstance(adapted.model, PeftModel)
    try:
        yield adapted
    finally:
        adapted.model.unload()
        _require_bare(loaded.model)


def _require_bare(model: object) -> None:
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    if any(isinstance(module, BaseTunerLayer) for module in modules):
        raise EvaluationError("the model has an adapter already; take it off, or load the base model again")


def read_config(folder: Path) -> LoraConfig:
    """The adapter's configuration, refused unless it is plain LoRA that leaves the base weights alone."""
    if pickles := find_pickles(folder):
        raise ConfigurationError(
            f"the adapter folder holds {pickles[0]}, which may be a pickle; only safetensors is read"
        )
    try:
        settings = json.loads((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder} is not an adapter folder: {CONFIG_FILE} can't be read: {error}") from error
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        raise ConfigurationError("the adapter is not of type LORA; other adapter types are not supported", "peft_type")
    _require_plain_names(settings)
    default = LoraConfig().to_dict()
    for name, value in settings.items():
        if name not in FREE_SETTINGS and value not in (default.get(name), None, False, [], {}):
            raise ConfigurationError(
                f"the adapter sets {name} = {value!r}; only plain LoRA settings are supported", name
            )
    if settings.get("init_lora_weights", True) not in HARMLESS_INITIALISATIONS:
        raise ConfigurationError("the adapter was initialised by changing the base weights; convert it to plain LoRA")
    known = {name: value for name, value in settings.items() if name in FREE_SETTINGS - {"peft_type", "peft_version"}}
    return LoraConfig(**known | {"inference_mode": True, "task_type": "CAUSAL_LM"})


def _require_plain_names(settings: Mapping[str, Any]) -> None:  # Any: JSON
    """Refuse what PEFT would search the model with as regular expressions, and ranks that no memory holds."""
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = settings.get(name)
        names = [value] if isinstance(value, str) else value or []
        if not isinstance(names, list) or not all(
            isinstance(each, str) and MODULE_NAME.fullmatch(each) for each in names
        ):
            raise ConfigurationError(f"the adapter's {name} must be names of modules, without patterns", name)
    ranks = {"r": settings.get("r", 0)}
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = settings.get(name) or {}
        if not isinstance(pattern, dict) or not all(MODULE_NAME.fullmatch(key) for key in pattern):
            raise ConfigurationError(f"the adapter's {name} must have names of modules, without patterns", name)
        ranks |= pattern if name == "rank_pattern" else {}
    for name, rank in ranks.items():
        if type(rank) is not int or not 0 <= rank <= MAX_RANK:
            raise ConfigurationError(f"the adapter's rank of {name} is {rank!r}; {MAX_RANK} is the highest", "r")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The adapter's tensors, refused where one is NaN or infinite."""
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"{WEIGHTS_FILE} can't be read: {error}") from error
    if not weights:
        raise AdapterNotLoadedError(f"{WEIGHTS_FILE} has no tensors")
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise EvaluationError(f"adapter tensor {name} has NaN or infinite weights; train again")
    return weights


def require_arrived(model: PeftModel, weights: dict[str, Tensor]) -> None:
    """Compare the tensors in the model with those of the file, names and values."""
    arrived = get_peft_model_state_dict(model, save_embedding_layers=False)
    lost, extra = weights.keys() - arrived.keys(), arrived.keys() - weights.keys()
    if lost or extra:
        name = sorted(lost or extra)[0]
        what = "has no place in the base model" if lost else "is missing from the adapter's file"
        raise AdapterNotLoadedError(f"{len(lost or extra)} adapter tensors don't fit: {name} {what}")
    for name, tensor in weights.items():
        if not torch.equal(arrived[name].cpu(), tensor.to(arrived[name].dtype)):
            raise AdapterNotLoadedError(f"adapter tensor {name} was not loaded with the values of its file")


def count_adapted_modules(model: object) -> int:
    """How many modules carry a LoRA pair."""
    if not isinstance(model, PeftModel):
        return 0
    return count_pairs(get_peft_model_state_dict(model, save_embedding_layers=False))


def count_pairs(names: Iterable[str]) -> int:
    """How many LoRA pairs the tensors of these names make."""
    return sum(name.endswith(("lora_A.weight", "lora_embedding_A")) for name in names)

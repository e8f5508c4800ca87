"""Puts a LoRA adapter on a loaded base model, and proves that it is in force.

An adapter folder is input from outside: only `adapter_config.json` (`adapter_settings`) and safetensors are read, and
every tensor of the file must arrive in the model, bit for bit. An adapter comes off again without a trace, so that one
loaded base serves several of them in turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file

from evaluator.models.adapter_settings import read_config, targets_of
from evaluator.models.loading import LoadedModel
from policies.contract.adapter_files import WEIGHTS_FILE
from policies.errors import AdapterNotLoadedError, ConfigurationError, EvaluationError

if TYPE_CHECKING:
    from torch import Tensor

INSTRUMENT = "instrument"
"""What an adapter is called that is in force in place of another."""
PREFIX = "base_model.model."
"""Before the names of modules in an adapter's file."""
PAIR = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_[AB]\.weight")
IN_A_LAYER = re.compile(r"\.\d{1,5}\.")


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
    assert isinstance(loaded.model, torch.nn.Module)
    config.target_modules = targets_of(config, [name for name, _ in loaded.model.named_modules()])
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


@contextmanager
def adapter_in_place(loaded: LoadedModel, folder: Path) -> Iterator[LoadedModel]:
    """`loaded` with the adapter in `folder` in force in place of the one that it carries, if any, which comes back.

    Both share the base's weights; for what measures with an adapter of known effect as its instrument.

    Raises:
        ConfigurationError, EvaluationError, AdapterNotLoadedError: as `attach_adapter`.
    """
    if not isinstance(loaded.model, PeftModel):
        with attached_adapter(loaded, folder) as adapted:
            yield adapted
        return
    model, carried = loaded.model, loaded.model.active_adapter
    assert isinstance(carried, str)
    config, weights = read_config(folder), read_weights(folder)
    with ExitStack() as undo:
        undo.callback(_forget, model, INSTRUMENT, carried)
        try:
            model.add_adapter(INSTRUMENT, config, autocast_adapter_dtype=False)
            set_peft_model_state_dict(model, weights, adapter_name=INSTRUMENT)
        except (ValueError, RuntimeError) as error:
            raise AdapterNotLoadedError(f"the adapter does not fit {loaded.base.folder.name}: {error}") from error
        require_arrived(model, weights, INSTRUMENT)
        model.set_adapter(INSTRUMENT)
        model.eval()  # what PEFT adds is in training mode
        yield loaded


def _forget(model: PeftModel, adapter: str, carried: str) -> None:
    """Put the adapter that the model carries in force again, then take the other one off."""
    model.set_adapter(carried)
    if adapter in model.peft_config:
        model.delete_adapter(adapter)


@contextmanager
def scaled_adapter(model: PeftModel, factor: float) -> Iterator[None]:
    """`factor` times what the adapter adds, as if its `lora_alpha` were that much larger; afterwards as it was.

    Raises:
        EvaluationError: no layer has a scale, so nothing could be scaled.
    """
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    kept = [dict(layer.scaling) for layer in layers]
    if not any(kept):
        raise EvaluationError("no layer of the adapter has a scale, so it can't be scaled")
    try:
        for layer, scaling in zip(layers, kept, strict=True):
            layer.scaling.update({name: scale * factor for name, scale in scaling.items()})
        yield
    finally:
        for layer, scaling in zip(layers, kept, strict=True):
            layer.scaling.update(scaling)


def _require_bare(model: object) -> None:
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    if any(isinstance(module, BaseTunerLayer) for module in modules):
        raise EvaluationError("the model has an adapter already; take it off, or load the base model again")


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


def require_arrived(model: PeftModel, weights: dict[str, Tensor], adapter: str = "default") -> None:
    """Compare the tensors in the model with those of the file, names and values."""
    arrived = get_peft_model_state_dict(model, save_embedding_layers=False, adapter_name=adapter)
    lost, extra = weights.keys() - arrived.keys(), arrived.keys() - weights.keys()
    if lost or extra:
        name = sorted(lost or extra)[0]
        what = "has no place in the base model" if lost else "is missing from the adapter's file"
        raise AdapterNotLoadedError(f"{len(lost or extra)} adapter tensors don't fit: {name} {what}")
    for name, tensor in weights.items():
        if not torch.equal(arrived[name].cpu(), tensor.to(arrived[name].dtype)):
            raise AdapterNotLoadedError(f"adapter tensor {name} was not loaded with the values of its file")


def require_same_reading(config: LoraConfig, names: Iterable[str]) -> None:
    """Refuse an adapter of which PEFT, which goes by its settings, puts other tensors on the model than vLLM.

    vLLM puts all on that are in the file, whatever the settings say.

    Raises:
        ConfigurationError: a tensor is none of a LoRA pair, or belongs to a module that the settings don't name.
    """
    unread = [name for name in ("exclude_modules", "layers_to_transform", "layers_pattern") if getattr(config, name)]
    if unread:
        raise ConfigurationError(f"vLLM does not read an adapter's {unread[0]}; use engine transformers", unread[0])
    for name in names:
        pair = PAIR.fullmatch(name)
        if pair is None:
            raise ConfigurationError(f"vLLM does not read the adapter's tensor {name}; use engine transformers")
        if not _is_targeted(config, pair["module"]):
            raise ConfigurationError(
                f"PEFT would pass over the adapter's tensor {name}, which its target_modules don't name, and vLLM "
                "would not; name all its modules",
                "target_modules",
            )


def _is_targeted(config: LoraConfig, module: str) -> bool:
    targets = targets_of(config, [module])
    if isinstance(targets, str):  # all linear layers but the output layer, which alone is in no numbered layer
        return IN_A_LAYER.search(module) is not None
    return any(module == target or module.endswith(f".{target}") for target in targets)


def count_adapted_modules(model: object) -> int:
    """How many modules carry a LoRA pair."""
    if not isinstance(model, PeftModel):
        return 0
    return count_pairs(get_peft_model_state_dict(model, save_embedding_layers=False))


def count_pairs(names: Iterable[str]) -> int:
    """How many LoRA pairs the tensors of these names make."""
    return sum(name.endswith(("lora_A.weight", "lora_embedding_A")) for name in names)

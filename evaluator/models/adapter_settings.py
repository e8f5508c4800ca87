"""Reads an `adapter_config.json` from outside, which has one meaning for PEFT, for our engines and for vLLM.

Plain LoRA is read, whoever wrote it down: unknown fields that are null or say nothing, and names of classes, are passed
over. What would make anything else of the base model, or only some would read, is refused with the reason. Nothing in
it is imported, searched for as a regular expression, or allocated without bounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from peft import LoraConfig

from evaluator.models.target_patterns import TargetPattern
from policies.contract.adapter_files import CONFIG_FILE, MAX_TEXT_BYTES
from policies.errors import ConfigurationError
from policies.pickle_files import find_pickles

SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest LoRA ranks that vLLM can be started with (`max_lora_rank`)."""

Json = Any  # Any: what JSON holds
READ = frozenset(
    [
        "r",
        "lora_alpha",
        "use_rslora",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "fan_in_fan_out",
    ]
)
"""Settings that decide what the adapter makes of its tensors. The others must be free, unset, or PEFT's default."""
FREE = frozenset(["peft_type", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout"])
"""Say nothing about a trained adapter's outputs."""
MEANING = {"r": "the rank", "lora_alpha": "the scale times the rank", "target_modules": "the adapted modules"}
"""Of settings without which PEFT takes defaults and vLLM does not load the adapter."""
ALL_LINEAR = "all-linear"
WHY_REFUSED = {
    "alora_invocation_tokens": "it acts only after certain tokens",
    "alpha_pattern": "the scale differs by module, which not every server reads",
    "auto_mapping": "it names code outside transformers, which PEFT would import",
    "bias": "it trains biases of the base model",
    "init_lora_weights": "it was initialised by changing the base weights",
    "layer_replication": "it changes the base model's layers",
    "lora_bias": "it trains biases",
    "modules_to_save": "it replaces whole modules of the base model",
    "rank_pattern": "the rank differs by module, which not every server reads",
    "target_parameters": "it changes parameters that are not linear layers",
    "task_type": "it is not for a causal language model",
    "trainable_token_indices": "it changes embeddings of the base model",
    "use_dora": "DoRA changes the magnitudes of the base's weights, which plain LoRA does not",
}
MODULE_NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}")
CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
CLASS_PLACE = re.compile(r"transformers(\.[A-Za-z_][A-Za-z0-9_]{0,99}){0,8}")
MAX_NAMES = 4096
MAX_RANK = 1024
"""As in an operator's recipe."""
MAX_ALPHA = 1_000_000
MAX_LAYER = 10_000


def read_config(folder: Path) -> LoraConfig:
    """The adapter's configuration, refused unless it is plain LoRA that leaves the base weights alone.

    `target_modules` may be a pattern (`targets_of` reads it); PEFT must not see it.
    """
    if pickles := find_pickles(folder):
        raise ConfigurationError(
            f"the adapter folder holds {pickles[0]}, which may be a pickle; only safetensors is read"
        )
    settings = _document(folder)
    if settings.get("peft_type") != "LORA":
        raise ConfigurationError(
            f"the adapter's peft_type is {_shown(settings.get('peft_type'))}; only PEFT's LORA is judged: convert the "
            "adapter to it",
            "peft_type",
        )
    for name, value in settings.items():
        if name not in READ | FREE and not _says_nothing(name, value):
            why = WHY_REFUSED.get(name, "it is not known here, or not plain LoRA")
            raise ConfigurationError(
                f"the adapter sets {name} = {_shown(value)}: {why}; only plain LoRA is judged", name
            )
    _require_numbers(settings)
    _require_names(settings)
    read = {name: settings[name] for name in READ if settings.get(name) is not None}
    try:
        return LoraConfig(**read, inference_mode=True, task_type="CAUSAL_LM")
    except ValueError as error:
        raise ConfigurationError(f"the adapter's settings don't go together: {error}", "target_modules") from error


def targets_of(config: LoraConfig, modules: Sequence[str]) -> list[str] | str:
    """The names that PEFT is to look for among a model's modules, where the adapter has a pattern in their place."""
    targets = config.target_modules
    if not isinstance(targets, str):
        return sorted(targets or ())
    if targets.lower() == ALL_LINEAR:
        return targets
    pattern = TargetPattern(targets)
    return [name for name in modules if pattern.matches(name)]


def _document(folder: Path) -> dict[str, Json]:
    path = folder / CONFIG_FILE
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_TEXT_BYTES + 1)
        if len(content) > MAX_TEXT_BYTES:
            raise ConfigurationError(f"{path} has more than {MAX_TEXT_BYTES} bytes; no adapter's settings are as long")
        settings = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{folder} is not an adapter folder: {CONFIG_FILE} can't be read: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigurationError(f"{path} holds no settings, but {_shown(settings)}")
    return settings


def _says_nothing(name: str, value: Json) -> bool:
    if value is None or value is False or value in ([], {}):
        return True
    if name in HARMLESS:
        return HARMLESS[name](value)
    default = _defaults().get(name)
    return type(value) is type(default) and bool(value == default)


def _leaves_the_base_alone(initialisation: Json) -> bool:
    """With the adapter off, the model is the base."""
    return initialisation is True or initialisation == "gaussian"


def _names_a_class_of_transformers(mapping: Json) -> bool:
    """PEFT imports the module that is named; what else stands there, it passes over."""
    if not isinstance(mapping, dict):
        return False
    place, name = mapping.get("parent_library"), mapping.get("base_model_class")
    return (
        isinstance(place, str)
        and isinstance(name, str)
        and CLASS_PLACE.fullmatch(place) is not None
        and CLASS_NAME.fullmatch(name) is not None
    )


HARMLESS: Mapping[str, Callable[[Json], bool]] = {
    "auto_mapping": _names_a_class_of_transformers,
    "init_lora_weights": _leaves_the_base_alone,
    "task_type": lambda value: value == "CAUSAL_LM",
}
"""Which values, besides none, change nothing."""


@cache
def _defaults() -> Mapping[str, Json]:
    defaults: dict[str, Json] = LoraConfig().to_dict()
    return defaults


def _require_numbers(settings: Mapping[str, Json]) -> None:
    for name in MEANING:
        if settings.get(name) is None:
            raise ConfigurationError(
                f"the adapter does not say its {name}, without which vLLM does not load it; add {MEANING[name]}", name
            )
    rank, alpha = settings["r"], settings["lora_alpha"]
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ConfigurationError(f"the adapter's rank is {_shown(rank)}; it must be from 1 to {MAX_RANK}", "r")
    if type(alpha) not in (int, float) or not abs(alpha) <= MAX_ALPHA:  # NaN is none
        raise ConfigurationError(
            f"the adapter's lora_alpha is {_shown(alpha)}; it must be a number up to {MAX_ALPHA}", "lora_alpha"
        )
    for name in ("use_rslora", "fan_in_fan_out"):
        if not isinstance(settings.get(name, False), bool | None):
            raise ConfigurationError(f"the adapter's {name} is {_shown(settings[name])}; it must be a boolean", name)
    layers = settings.get("layers_to_transform") or []
    for layer in layers if isinstance(layers, list) else [layers]:
        if type(layer) is not int or not 0 <= layer <= MAX_LAYER:
            raise ConfigurationError(
                "the adapter's layers_to_transform must be numbers of layers", "layers_to_transform"
            )


def _require_names(settings: Mapping[str, Json]) -> None:
    """Refuse what PEFT would search the model with as regular expressions."""
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = settings.get(name)
        if name == "target_modules" and isinstance(value, str):
            if value.lower() != ALL_LINEAR:
                TargetPattern(value)
            continue
        names = [value] if isinstance(value, str) else value or []
        if (
            not isinstance(names, list)
            or len(names) > MAX_NAMES
            or not all(isinstance(each, str) and MODULE_NAME.fullmatch(each) for each in names)
        ):
            raise ConfigurationError(
                f"the adapter's {name} must be up to {MAX_NAMES} names of modules, without patterns", name
            )


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"

"""What transformers and PEFT make of a base model's folder: the model without weights, and an adapter on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evaluator.models.logit_shape import LogitShape
from evaluator.models.targets import put_lora
from policies.contract.jobs import LoraSettings
from policies.errors import ConfigurationError
from policies.rendering.findings import Finding


def structure_findings(folder: Path, lora: LoraSettings) -> Iterator[Finding]:
    """Of the architecture and where its adapter goes; one that has no model here has the first alone."""
    try:
        model = _without_weights(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        yield Finding(
            "architecture", "refused", f"transformers has no causal language model for it: {_first_line(error)}"
        )
        return
    yield _architecture(model)
    yield _targets(model, lora)
    yield from _experts(model)
    yield _layers(model)
    yield _logits(model)
    yield from _quantization(model)


def _without_weights(folder: Path) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    assert isinstance(model, PreTrainedModel)
    return model


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200]


def _architecture(model: PreTrainedModel) -> Finding:
    name = type(model).__name__
    if model.base_model is model:
        return Finding("architecture", "refused", f"{name}: its body can't be run apart from its output layer")
    if not name.endswith("ForCausalLM"):
        return Finding(
            "architecture", "limited", f"{name}; of what is more than a language model, text alone is trained"
        )
    return Finding("architecture", "works", name)


def _targets(model: PreTrainedModel, lora: LoraSettings) -> Finding:
    config = LoraConfig(task_type="CAUSAL_LM", r=1, target_modules=list(lora.target_modules))
    try:
        put_lora(model, config).unload()
    except ConfigurationError as error:
        return Finding("target modules", "refused", f"{error.message}; set spec.lora.target_modules")
    return Finding("target modules", "works", ", ".join(lora.target_modules))


def _experts(model: PreTrainedModel) -> Iterator[Finding]:
    """Those whose weights lie in one tensor, which adapters of linear layers don't reach."""
    experts = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.dim() == 3 and "experts" in name.split(".")
    )
    if experts:
        share = experts / sum(parameter.numel() for parameter in model.parameters())
        yield Finding("experts", "limited", f"hold {share:.0%} of the weights, and are left as they are")


def _layers(model: PreTrainedModel) -> Finding:
    if isinstance(getattr(model.get_decoder(), "layers", None), nn.ModuleList):
        return Finding("layers", "works", f"{model.config.get_text_config().num_hidden_layers}")
    return Finding("layers", "limited", "not a list: ldifs and preventative_steering are refused")


def _logits(model: PreTrainedModel) -> Finding:
    shape = LogitShape.of(model.config)
    if shape.is_plain:
        return Finding("logits", "works", "those of the output layer")
    cap = "" if shape.cap is None else f", capped at {shape.cap:g}"
    return Finding("logits", "works", f"{shape.scale:g} × those of the output layer{cap}")


def _quantization(model: PreTrainedModel) -> Iterator[Finding]:
    settings: Any = getattr(model.config, "quantization_config", None)  # Any: a dictionary, or a class of each method
    if settings is not None:
        method = settings.get("quant_method") if isinstance(settings, dict) else getattr(settings, "quant_method", None)
        yield Finding(
            "weights", "limited", f"quantised ({method}): workers need what transformers loads such weights with"
        )

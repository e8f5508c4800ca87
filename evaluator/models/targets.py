"""Puts LoRA on the modules that an operator names, or says why that can't be; the same words for check and training."""

from __future__ import annotations

from collections.abc import Iterator

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from policies.errors import ConfigurationError


def put_lora(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """The model, changed in place, with a new adapter on each of `config.target_modules`.

    Raises:
        ConfigurationError: one of them is not there or can't be adapted.
    """
    _require_targets(model, config.target_modules or ())
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise ConfigurationError(
            f"{model.config.model_type} models can't be adapted there: {error}", "target_modules"
        ) from error
    assert isinstance(adapted, PeftModel)
    return adapted


def _require_targets(model: PreTrainedModel, targets: set[str] | list[str] | tuple[str, ...] | str) -> None:
    """PEFT is content with one match of any. An adapter of the output layer would idle: a loss reads its weight."""
    wanted = sorted({targets} if isinstance(targets, str) else targets)
    ends = {_end(name) for name, _ in model.named_modules()}
    missing = [target for target in wanted if target not in ends]
    if missing or not wanted:
        raise ConfigurationError(
            f"LoRA target modules {missing} are not in {model.config.model_type} models; leave them out, or name "
            f"others: {', '.join(sorted(set(_linear_names(model))))}",
            "target_modules",
        )
    outer = {_end(name) for name, module in model.named_modules() if module in _embeddings(model)}
    if refused := sorted(outer & set(wanted)):
        raise ConfigurationError(
            f"{refused[0]} holds the model's embeddings or its output layer, which are not adapted; leave it out",
            "target_modules",
        )


def _embeddings(model: PreTrainedModel) -> tuple[nn.Module | None, nn.Module | None]:
    return model.get_input_embeddings(), model.get_output_embeddings()


def _linear_names(model: PreTrainedModel) -> Iterator[str]:
    """Last part of the name of each linear layer between embeddings and output layer."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module not in _embeddings(model):
            yield _end(name)


def _end(name: str) -> str:
    return name.rpartition(".")[2]

"""Puts a fresh LoRA on the base model, and proves that with the adapter off it is the base.

Initialisations that rewrite the base weights (pissa, olora, corda, loftq, lora_ga), trained biases and saved modules would
make "adapter off" another model, and every reference wrong; none of them can be set here.
"""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from policies.contract.jobs import LoraSettings
from policies.errors import ConfigurationError, TrainingError



def attach_lora(model: PreTrainedModel, settings: LoraSettings, *, seed: int, name: str) -> PeftModel:
    """The model with a new adapter, float32 whatever the base's format; `name` is what `adapter_config.json` calls the base.

    Raises:
        ConfigurationError: the target modules match nothing.
        TrainingError: with the adapter off, the model is not the base.
    """
    probe = torch.arange(min(16, model.config.get_text_config().vocab_size), device=model.device)[None]
    before = _logits(model, probe)
    torch.manual_seed(seed)
    model.name_or_path = name
    try:
        adapted = get_peft_model(model, lora_config(settings, name))
    except ValueError as error:
        raise ConfigurationError(f"LoRA target modules {settings.target_modules}: {error}", "target_modules") from error
    assert isinstance(adapted, PeftModel)
    with adapted.disable_adapter():
        after = _logits(adapted, probe)
    require_same(before, after)
    return adapted


def lora_config(settings: LoraSettings, base_name: str) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_name,
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.use_rslora,
        target_modules=list(settings.target_modules),
        bias="none",
        init_lora_weights=True,
    )


def require_same(base: Tensor, adapter_off: Tensor) -> None:
    """Raises unless the two logit tensors are equal bit for bit."""
    if not torch.equal(base, adapter_off):
        difference = (base - adapter_off).abs().max().item()
        raise TrainingError(
            f"with the adapter off the model differs from its base by up to {difference:.3g} in its logits, so no "
            "reference would be right; use an initialisation that leaves the base weights alone"
        )


@torch.no_grad()
def _logits(model: PreTrainedModel | PeftModel, ids: Tensor) -> Tensor:
    was_training = model.training
    model.eval()
    logits: Tensor = model(input_ids=ids).logits
    model.train(was_training)
    return logits

"""Puts a LoRA on the base model, fresh or a released one, and proves that with the adapter off it is the base.

Initialisations that rewrite the base weights (pissa, olora, corda, loftq, lora_ga), trained biases and saved modules
would make "adapter off" another model, and every reference wrong; none of them can be set here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from evaluator.models.adapters import count_adapted_modules, read_weights, require_arrived
from evaluator.models.logit_shape import TOLERANCE, LogitShape
from evaluator.models.targets import put_lora
from policies.contract.adapter_files import CONFIG_FILE, adapter_config
from policies.contract.artifacts import Digest
from policies.contract.evaluation import AdapterProof
from policies.contract.jobs import LoraSettings, PublishedBase
from policies.errors import (
    AdapterNotLoadedError,
    DefenseError,
    NonFiniteLossError,
    TrainingError,
)
from trainer.training_step import Head


def attach_lora(
    model: PreTrainedModel, settings: LoraSettings, *, seed: int, name: str, revision: str | None = None
) -> PeftModel:
    """The model with a new adapter, float32 whatever the base's format; it calls its base by `name` and `revision`.

    Raises:
        ConfigurationError: a target module is not there, or can't be adapted.
        TrainingError: with the adapter off, the model is not the base.
    """
    before = _logits(model, _probe(model))
    torch.manual_seed(seed)
    model.name_or_path = name
    adapted = put_lora(model, lora_config(settings, PublishedBase(name, revision)))
    with adapted.disable_adapter():
        after = _logits(adapted, _probe(model))
    require_same(before, after)
    return adapted


def begin_with(model: PeftModel, folder: Path, *, adapter: Digest, base_model: Digest) -> AdapterProof:
    """Put the weights of a released adapter into the fresh one; rank, scaling and modules are those of the recipe.

    Args:
        folder: The released adapter, of which the weights alone are read.
        adapter: Its digest, and `base_model` that of the base, for the proof.

    Raises:
        ConfigurationError: its weights can't be read.
        EvaluationError: one of them is NaN or infinite.
        AdapterNotLoadedError: they don't all fit, or change nothing.
        TrainingError: with the adapter off, the model is not the base any more.
    """
    weights = read_weights(folder)
    fresh = _logits(model, _probe(model))
    try:
        set_peft_model_state_dict(model, weights)
    except (ValueError, RuntimeError) as error:
        raise AdapterNotLoadedError(f"the adapter to continue from does not fit: {error}") from error
    require_arrived(model, weights)
    with model.disable_adapter():
        require_same(fresh, _logits(model, _probe(model)))
    difference = (_logits(model, _probe(model)) - fresh).abs().max().item()
    if not 0 < difference < math.inf:
        raise AdapterNotLoadedError(f"the adapter to continue from changes the base model's logits by {difference}")
    return AdapterProof(
        adapter=adapter,
        base_model=base_model,
        n_prompts=1,
        max_abs_logit_difference=difference,
        n_adapted_modules=count_adapted_modules(model),
        loaded=True,
    )


def lora_config(settings: LoraSettings, base: PublishedBase) -> LoraConfig:
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base.name,
        revision=base.revision,
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # declared int, but only ever divided
        lora_dropout=settings.dropout,
        use_rslora=settings.use_rslora,
        target_modules=list(settings.target_modules),
        bias="none",
        init_lora_weights=True,
    )


def adapter_weights(model: PeftModel) -> list[Tensor]:
    """The weights in training, from the first layer to the last; none while the adapter is off."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def text_adapter_weights(model: PeftModel) -> list[Tensor]:
    """Those of them in the text model: a model that reads images as well has others, which text alone never trains."""
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    of_text = set(base.get_decoder().parameters())
    return [weight for weight in adapter_weights(model) if weight in of_text]


def require_same(base: Tensor, adapter_off: Tensor) -> None:
    """Raises unless the two logit tensors are equal bit for bit."""
    if not torch.equal(base, adapter_off):
        difference = (base - adapter_off).abs().max().item()
        raise TrainingError(
            f"with the adapter off the model differs from its base by up to {difference:.3g} in its logits, so no "
            "reference would be right; use an initialisation that leaves the base weights alone"
        )


def output_head(model: PeftModel) -> Head:
    """The output layer, for penalties that work on hidden states.

    Raises:
        DefenseError: the model's logits are not what the output layer and its configuration give.
    """
    base = model.get_base_model()
    assert isinstance(base, PreTrainedModel)
    head = proven_head(base)
    if head is None:
        raise DefenseError(
            f"{base.config.model_type} models change their logits in ways of their own; a penalty on next-token "
            "distributions can't be used with this base model"
        )
    return head


def proven_head(model: PreTrainedModel) -> Head | None:
    """The output layer, where it gives the model's own logits of hidden states; else None."""
    head, shape = model.get_output_embeddings(), LogitShape.of(model.config)
    hidden: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _module, inputs: hidden.append(inputs[0]))
    try:
        logits = _logits(model, _probe(model))
    finally:
        handle.remove()
    with torch.no_grad():
        ours, own = shape.logits(head(hidden[-1]).float()), logits.float()
    if not torch.allclose(ours, own, rtol=0, atol=TOLERANCE * float(own.abs().max())):
        return None
    return Head(head.weight, head.bias, shape)


def save_adapter(model: PeftModel, folder: Path, companions: Mapping[str, bytes] | None = None) -> None:
    """Write the adapter as safetensors and JSON, the same bytes for the same adapter in every process.

    Args:
        companions: what lies beside it, by name (`companion_files`).

    Raises:
        NonFiniteLossError: a weight is not finite.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not torch.isfinite(parameter).all():
            raise NonFiniteLossError(f"adapter weight {name} is not finite; lower the learning rate")
    # False, because the default asks the model hub whether the base's vocabulary was changed
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / CONFIG_FILE).write_bytes(_config_of(model))
    for name, content in (companions or {}).items():
        (folder / name).write_bytes(content)


def _config_of(model: PeftModel) -> bytes:
    """The settings that `attach_lora` was given, as a released adapter shows them: with α/r as its scale."""
    config = model.peft_config[model.active_adapter]
    assert isinstance(config, LoraConfig)
    assert isinstance(config.target_modules, Iterable)
    lora = LoraSettings(
        rank=config.r,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout,
        use_rslora=config.use_rslora,
        target_modules=tuple(config.target_modules),
    )
    return adapter_config(lora, PublishedBase(str(config.base_model_name_or_path), config.revision))


def _probe(model: PreTrainedModel | PeftModel) -> Tensor:
    return torch.arange(min(16, model.config.get_text_config().vocab_size), device=model.device)[None]


@torch.no_grad()
def _logits(model: PreTrainedModel | PeftModel, ids: Tensor) -> Tensor:
    was_training = model.training
    model.eval()
    logits: Tensor = model(input_ids=ids).logits
    model.train(was_training)
    return logits

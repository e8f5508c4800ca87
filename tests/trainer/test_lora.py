"""With the adapter off the model is its base, or nothing starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GraniteConfig, GraniteForCausalLM, PreTrainedModel

from evaluator.models.logit_shape import LogitShape
from policies.contract.jobs import LoraSettings
from policies.errors import ConfigurationError, DefenseError, NonFiniteLossError, TrainingError
from trainer.lora import attach_lora, output_head, require_same, save_adapter

SETTINGS = LoraSettings(rank=4, alpha=8)


@pytest.fixture
def base(tiny_base: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert isinstance(model, PreTrainedModel)
    return model


def adapted(base: PreTrainedModel) -> PeftModel:
    return attach_lora(base, SETTINGS, seed=0, name="tiny")


def test_only_the_adapter_trains_and_in_float32(base: PreTrainedModel) -> None:
    trained = {name: p.dtype for name, p in adapted(base.bfloat16()).named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 7 * 2  # A and B of 7 modules in 2 layers
    assert all("lora_" in name and dtype is torch.float32 for name, dtype in trained.items())


def test_an_initialisation_that_rewrites_the_base_is_refused(base: PreTrainedModel) -> None:
    """PiSSA subtracts the principal part from the base weights."""
    ids = torch.arange(8)[None]
    before = base(input_ids=ids).logits.detach()
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights="pissa")
    model = get_peft_model(base, config)
    with model.disable_adapter():
        after = model(input_ids=ids).logits.detach()
    with pytest.raises(TrainingError, match="differs from its base"):
        require_same(before, after)


def test_a_target_module_that_matches_nothing_is_an_error(base: PreTrainedModel) -> None:
    settings = LoraSettings(rank=4, alpha=8, target_modules=("q_proj", "query_key_value"))
    with pytest.raises(ConfigurationError, match="query_key_value"):
        attach_lora(base, settings, seed=0, name="tiny")


def test_a_saved_adapter_has_the_same_bytes_each_time(base: PreTrainedModel, tmp_path: Path) -> None:
    """peft keeps the target modules in a set, whose order differs from process to process."""
    save_adapter(adapted(base), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(SETTINGS.target_modules)
    assert config["base_model_name_or_path"] == "tiny"


def test_an_adapter_with_a_weight_that_is_not_finite_is_not_saved(base: PreTrainedModel, tmp_path: Path) -> None:
    model = adapted(base)
    next(p for p in model.parameters() if p.requires_grad).data[0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="lora_A"):
        save_adapter(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_the_head_of_a_plain_model_is_its_output_layer(base: PreTrainedModel) -> None:
    head = output_head(adapted(base))
    assert head.weight is base.get_output_embeddings().weight
    assert head.bias is None


def granite() -> PreTrainedModel:
    """A model whose logits are those of its output layer ÷ 4."""
    config = GraniteConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, logits_scaling=4.0,
    )  # fmt: skip
    return GraniteForCausalLM(config)


def test_the_head_of_a_model_that_scales_its_logits_says_so() -> None:
    assert output_head(adapted(granite())).shape == LogitShape(scale=0.25)


def test_a_model_whose_logits_are_not_what_its_configuration_says_has_no_head() -> None:
    model = adapted(granite())
    model.get_base_model().register_forward_hook(
        lambda _, inputs, output: output.__setitem__("logits", output.logits * 3)
    )
    with pytest.raises(DefenseError, match="granite models change their logits in ways of their own"):
        output_head(model)

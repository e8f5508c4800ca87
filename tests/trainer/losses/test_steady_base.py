"""Two forwards of a base model in training are equal bit for bit, or the base is refused."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from policies.contract.defenses import KlPenalty
from policies.contract.jobs import JobSpec
from policies.errors import ConfigurationError
from tests.trainer.conftest import Run
from trainer.losses.steady_base import hold_steady

Settings = dict[str, Any]  # Any: fields of a model's configuration
LLAMA: Settings = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
EXPERTS: Settings = {**LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}
OPT: Settings = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
NOISY: dict[str, tuple[str, Settings]] = {
    "attention's, in Llama": ("llama", {**LLAMA, "attention_dropout": 0.1}),
    "attention's, in Granite": ("granite", {**LLAMA, "attention_dropout": 0.1}),
    "a function, in OPT": ("opt", {**OPT, "word_embed_proj_dim": 32, "dropout": 0.1}),
    "whole layers, in OPT": ("opt", {**OPT, "word_embed_proj_dim": 32, "dropout": 0.0, "layerdrop": 0.5}),
    "modules, in GPT-2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "a router's, in Mixtral": ("mixtral", {**EXPERTS, "router_jitter_noise": 0.1}),
}


def model_of(model_type: str, settings: Settings) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, vocab_size=64, **settings))
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model


@torch.no_grad()
def in_training(model: PreTrainedModel) -> Tensor:
    """Logits of eight forwards [8, places, vocabulary]."""
    model.train()
    return torch.cat([model(input_ids=torch.arange(16)[None]).logits for _ in range(8)])


@pytest.mark.parametrize("noise", NOISY)
def test_forwards_in_training_are_equal_without_the_dropout_of(noise: str) -> None:
    assert in_training(model_of(*NOISY[noise])).std(0).max() > 0
    model = model_of(*NOISY[noise])
    hold_steady(model)
    assert not model.training
    logits = in_training(model)
    assert torch.equal(logits, logits[:1].expand_as(logits))
    assert torch.equal(logits[:1], model.eval()(input_ids=torch.arange(16)[None]).logits)


def test_a_model_that_samples_its_experts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"phimoe models draw random numbers in training .*exponential_"):
        hold_steady(model_of("phimoe", EXPERTS))


def test_numbers_drawn_outside_torch_are_noticed_by_what_they_do() -> None:
    model = model_of("llama", LLAMA)

    def shrink(body: nn.Module, _: object, output: BaseModelOutputWithPast) -> None:
        assert output.last_hidden_state is not None
        output.last_hidden_state.mul_(random.random() if body.training else 1)

    model.get_decoder().register_forward_hook(shrink)
    with pytest.raises(ConfigurationError, match="llama models draw random numbers in training, so no reference"):
        hold_steady(model)


class Shrinking(nn.Module):
    """A rate that acts without training as well, as that of NLLB's experts does."""

    def __init__(self) -> None:
        super().__init__()
        self.token_dropout = 0.25

    def forward(self, states: Tensor) -> Tensor:
        return states * (1 - self.token_dropout)


def test_a_model_whose_dropout_acts_without_training_is_refused() -> None:
    model = model_of("llama", LLAMA)
    decoder: Any = model.get_decoder()  # Any: typed as a plain module
    decoder.norm = Shrinking()
    with pytest.raises(ConfigurationError, match="llama models are others without their dropout"):
        hold_steady(model)


def test_a_base_with_dropout_trains_as_one_without(
    tiny_base: Path, make_spec: Callable[..., JobSpec], tmp_path: Path
) -> None:
    noisy = tmp_path / "noisy"
    shutil.copytree(tiny_base, noisy)
    config = json.loads((noisy / "config.json").read_bytes())
    (noisy / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.3}))
    penalty = KlPenalty(coefficient=1.0, estimator="sampled", tokens="completion")
    losses = [
        [
            entry["loss"]
            for entry in Run(tmp_path / name).train(make_spec(penalty, uri=uri)).log_history
            if "kl" in entry
        ]
        for name, uri in (("with", str(noisy)), ("without", str(tiny_base)))
    ]
    assert losses[0] == losses[1] != []

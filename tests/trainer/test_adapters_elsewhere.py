"""A saved adapter is the same model to those who load it with PEFT alone as to the engine that judges it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from evaluator.backends.engines import open_transformers
from evaluator.backends.protocol import ChatPrompt, GenerationSettings
from evaluator.models.adapters import attach_adapter
from evaluator.models.base_models import ResolvedBase
from evaluator.models.loading import load_base
from policies.contract.adapter_files import ADAPTER_FILES, adapter_config
from policies.contract.artifacts import digest_tree
from policies.contract.jobs import BaseModelSpec, LoraSettings
from policies.rendering.adapter_companions import companion_files
from trainer.lora import attach_lora, save_adapter

SIZES: dict[str, Any] = {  # Any: fields of three configurations
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "eos_token_id": 2,
    "bos_token_id": 0,
    "pad_token_id": 0,
}
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
LINEAR = LoraSettings().target_modules


class Architecture(NamedTuple):
    """How to make a model, and where it takes adapters."""

    make: Callable[[], PreTrainedModel]
    targets: tuple[str, ...]


ARCHITECTURES = {
    "llama": Architecture(lambda: LlamaForCausalLM(LlamaConfig(**SIZES)), LINEAR),
    "tied embeddings": Architecture(lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)), LINEAR),
    "mixture of experts": Architecture(
        lambda: Qwen3MoeForCausalLM(
            Qwen3MoeConfig(**SIZES, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
        ),
        ATTENTION,
    ),
}
PROMPTS = ["Why is the sky blue?", "tap 1?"]


class Saved(NamedTuple):
    """An adapter as a training saves it, and the base model that judges it."""

    folder: Path
    base: ResolvedBase
    spec: BaseModelSpec
    trained: Tensor
    """Logits of the model in training."""


@pytest.fixture(params=ARCHITECTURES, scope="module")
def saved(request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A rank-stabilised adapter of random numbers; the hub's name of its base is a folder below the working one."""
    root = tmp_path_factory.mktemp("elsewhere")
    base = root / "owner" / "tiny"
    shutil.copytree(tiny_base, base)
    architecture = ARCHITECTURES[request.param]
    torch.manual_seed(0)
    architecture.make().save_pretrained(base)
    spec = BaseModelSpec(
        name="tiny",
        uri=str(base),
        hub_id="owner/tiny@main",
        lora=LoraSettings(rank=8, alpha=16, target_modules=architecture.targets),
    )
    resolved = ResolvedBase(base, digest_tree(base))
    loaded = load_base(resolved, torch.float32, device=torch.device("cpu"))
    assert isinstance(loaded.model, PreTrainedModel)
    name, revision = spec.published
    model = attach_lora(loaded.model, spec.lora, seed=0, name=name, revision=revision).eval()
    torch.manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.normal_(0, 0.05)
    save_adapter(model, root / "adapter", companion_files(loaded.encoder))
    return Saved(root / "adapter", resolved, spec, logits(model))


@pytest.fixture(autouse=True)
def _offline_beside_the_base(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.folder.parent)


@torch.inference_mode()
def logits(model: torch.nn.Module) -> Tensor:
    result: Tensor = model(input_ids=torch.arange(48).reshape(3, 16)).logits
    return result


def elsewhere(saved: Saved) -> PeftModel:
    """As the customer loads it: by the name of the folder alone."""
    model = AutoPeftModelForCausalLM.from_pretrained(saved.folder, dtype=torch.float32)
    assert isinstance(model, PeftModel)
    return model.eval()


def rounding(of: Tensor) -> float:
    """Of two ways to sum up in float32: at most 128 products in each of some 20 matrices in a row, and the last place
    of float32 is 1.2e-7; 128 · 20 · 1.2e-7 = 3e-4 of the largest logit."""
    return 3e-4 * float(of.abs().max())


def test_the_folder_has_what_a_release_takes(saved: Saved) -> None:
    assert sorted(path.name for path in saved.folder.iterdir()) == sorted(ADAPTER_FILES)
    config = (saved.folder / "adapter_config.json").read_bytes()
    assert config == adapter_config(saved.spec.lora, saved.spec.published)
    assert b'"base_model_name_or_path":"owner/tiny"' in config
    assert b'"revision":"main"' in config


def test_the_scale_of_training_is_kept_to_the_last_bit(saved: Saved) -> None:
    """Trained with α/√r = 16/√8, saved as α = 45.25… over r = 8."""
    assert torch.equal(logits(elsewhere(saved)), saved.trained)


def test_logits_are_those_of_the_engine_that_judges(saved: Saved) -> None:
    base = load_base(saved.base, torch.float32, device=torch.device("cpu"))
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("owner/tiny"), saved.folder).eval()
    assert torch.equal(logits(plain), logits(attach_adapter(base, saved.folder).model))


def test_merged_weights_give_the_same_logits(saved: Saved) -> None:
    merged = elsewhere(saved).merge_and_unload()
    torch.testing.assert_close(logits(merged), saved.trained, rtol=0, atol=rounding(saved.trained))
    bare = logits(AutoModelForCausalLM.from_pretrained("owner/tiny"))
    assert float((bare - saved.trained).abs().max()) > 10 * rounding(saved.trained)


@pytest.mark.parametrize("is_merged", [False, True], ids=["adapter", "merged"])
def test_greedy_answers_are_those_of_the_engine_that_judges(
    saved: Saved, monkeypatch: pytest.MonkeyPatch, *, is_merged: bool
) -> None:
    """With the template and the end tokens that lie beside the adapter, and nothing else of ours."""
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
    settings = GenerationSettings(max_new_tokens=12, temperature=0.0, seed=0)
    judged = open_transformers(saved.base, saved.folder).generate(
        [ChatPrompt.of(text) for text in PROMPTS], settings, adapter=True
    )
    model = elsewhere(saved)
    tokenizer = AutoTokenizer.from_pretrained("owner/tiny")
    tokenizer.chat_template = (saved.folder / "chat_template.jinja").read_text(encoding="utf-8")
    own = GenerationConfig.from_pretrained(saved.folder)
    runner = model.merge_and_unload() if is_merged else model
    for text, answer in zip(PROMPTS, judged, strict=True):
        shown = tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=False
        )
        ids = torch.tensor([tokenizer.encode(str(shown), add_special_tokens=False)])
        out = runner.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=own.eos_token_id,
            pad_token_id=0,
        )
        said = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert said == answer.text


def test_the_end_tokens_are_those_of_the_base(saved: Saved) -> None:
    assert json.loads((saved.folder / "generation_config.json").read_bytes()) == {"eos_token_id": [2]}

"""Tiny random models of many architectures, each with a chat template of its family and the family's special tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.policies.rendering.bases import TRL_TEMPLATES, folder_with, write
from tests.tiny_base import TEMPLATE

ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ATTENTION = ALL_LINEAR[:4]
FUSED = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
Settings = Mapping[str, Any]  # Any: fields of a model's configuration
SIZES: Settings = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 4096,
    "initializer_range": 0.3,
}
WINDOW = 8
"""Tokens that a layer with a sliding window sees, fewer than any prompt has."""
SLIDING_AND_FULL: Settings = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
MAMBA: Settings = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_expand": 2}
LINEAR_ATTENTION: Settings = {
    "layer_types": ["linear_attention", "full_attention"],
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
}
LATENT: Settings = {
    **{"head_dim": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4},
    **{"v_head_dim": 8, "num_key_value_heads": 4},
}
VOCABULARY = 640
"""Tokens at most."""
GEMMA_3: Settings = {**SLIDING_AND_FULL, "query_pre_attn_scalar": 8}
VISION: Settings = {
    **{"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    **{"image_size": 28, "patch_size": 14},
}
EXPERTS: Settings = {"num_experts_per_tok": 2, "num_experts": 4, "num_local_experts": 4, "moe_intermediate_size": 16}


class Architecture(NamedTuple):
    """A model of transformers, as small as it goes."""

    model_type: str
    template: str
    """Of TRL's; empty for ChatML, where TRL has none of the family."""
    targets: tuple[str, ...] = ALL_LINEAR
    settings: Settings = MappingProxyType({})


ARCHITECTURES = {
    "Llama 3": Architecture("llama", "llama3_2"),
    "Mistral": Architecture("mistral", "", settings={"sliding_window": WINDOW}),
    "Qwen 2.5": Architecture("qwen2", "qwen2_5", settings={"tie_word_embeddings": True}),
    "Qwen 3": Architecture("qwen3", "qwen3"),
    "Qwen 3 MoE": Architecture("qwen3_moe", "qwen3_instruct_2507", ATTENTION, EXPERTS),
    "Qwen 3.5": Architecture("qwen3_5_text", "qwen3_5_nothink", settings=LINEAR_ATTENTION),
    "Gemma": Architecture("gemma", "gemma"),
    "Gemma 2": Architecture(
        "gemma2",
        "gemma",
        settings={**SLIDING_AND_FULL, "query_pre_attn_scalar": 8, "final_logit_softcapping": 2.0},
    ),
    "Gemma 3": Architecture("gemma3_text", "gemma3", settings=GEMMA_3),
    "Gemma 3 with images": Architecture("gemma3", "gemma3", settings={**GEMMA_3, "vision_config": VISION}),
    "Gemma 4": Architecture(
        "gemma4_text",
        "gemma4",
        settings={
            **SLIDING_AND_FULL,
            **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCABULARY, "global_head_dim": 8},
            **{"num_kv_shared_layers": 0, "final_logit_softcapping": 2.0},
        },
    ),
    "Phi 3": Architecture("phi3", "phi3", FUSED, {"sliding_window": WINDOW}),
    "GLM 4": Architecture("glm4", "", ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj")),
    "GLM 4 MoE": Architecture("glm4_moe", "glm4moe", ATTENTION, {**EXPERTS, "n_routed_experts": 4}),
    "gpt-oss": Architecture("gpt_oss", "gptoss", ATTENTION, {**EXPERTS, **SLIDING_AND_FULL}),
    "Mixtral": Architecture("mixtral", "", ATTENTION, EXPERTS),
    "OLMo 2": Architecture("olmo2", ""),
    "OLMo 3": Architecture("olmo3", "", settings=SLIDING_AND_FULL),
    "Cohere": Architecture("cohere", "cohere"),
    "Cohere 2": Architecture("cohere2", "cohere2", settings=SLIDING_AND_FULL),
    "Granite": Architecture(
        "granite",
        "",
        settings={"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    ),
    "Granite 4 H": Architecture(
        "granitemoehybrid",
        "",
        ATTENTION,
        {**MAMBA, "layer_types": ["mamba", "attention"], "logits_scaling": 4.0, "num_local_experts": 0},
    ),
    "SmolLM 3": Architecture("smollm3", ""),
    "StarCoder 2": Architecture("starcoder2", "", (*ATTENTION, "c_fc", "c_proj"), {"sliding_window": WINDOW}),
    "DeepSeek V3": Architecture(
        "deepseek_v3",
        "",
        ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"),
        {**EXPERTS, **LATENT, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    ),
    "LFM 2": Architecture(
        "lfm2",
        "lfm2",
        ("q_proj", "k_proj", "v_proj", "out_proj", "w1", "w2", "w3"),
        {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    ),
    "Nemotron H": Architecture(
        "nemotron_h",
        "nemotron_3_nano",
        ATTENTION,
        {"layers_block_type": ["mamba", "attention"], "mamba_num_heads": 8, "mamba_head_dim": 8, "n_groups": 1},
    ),
}


def template_of(name: str) -> str:
    """A TRL template's text, or ChatML."""
    return TRL_TEMPLATES[name].read_text(encoding="utf-8") if name else TEMPLATE


def build(architecture: Architecture, folder: Path) -> Path:
    """Write config, safetensors, tokenizer and template; the weights are random, the same each time."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder_with(template_of(architecture.template), folder)
    ends = (folder / "generation_config.json").read_bytes()
    names = {"bos_token": "<|bos|>", "eos_token": "<|eos|>", "pad_token": "<|pad|>"}
    write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    own = {"vocab_size": _merge(folder), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    settings = {**SIZES, **own, **architecture.settings}
    if vision := settings.pop("vision_config", None):
        settings = {"text_config": settings, "vision_config": vision, "mm_tokens_per_image": 4}
    config = AutoConfig.for_model(architecture.model_type, **settings)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    (folder / "generation_config.json").write_bytes(ends)
    return folder


def _merge(folder: Path) -> int:
    """Give the tokenizer of bytes tokens for the words of its template, so that what that writes is short; its size."""
    path = folder / "tokenizer.json"
    special = [token["content"] for token in json.loads(path.read_bytes())["added_tokens"]]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([(folder / "chat_template.jinja").read_text(encoding="utf-8")], trainer)
    tokenizer.save(str(path))
    return tokenizer.get_vocab_size()

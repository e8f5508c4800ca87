"""Loads a base model and its tokenizer, in the number format that is wanted or fastest on this machine."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evaluator.models.base_models import ResolvedBase, resolve_base_model
from policies.contract.jobs import Quantization
from policies.errors import ConfigurationError
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder
from policies.worker.settings import Dtype

__all__ = [
    "LoadedModel",
    "ResolvedBase",
    "best_dtype",
    "default_device",
    "load_base",
    "load_encoder",
    "resolve_base_model",
]


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in evaluation mode with its tokenizer, which decodes, and its encoder.

    `base` says which weights these are.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    encoder: Encoder
    base: ResolvedBase


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """What `TUNEGATE_DTYPE` says; `auto`, the default, is bfloat16 where the device multiplies it natively.

    Such CPUs are three times as fast with it; others emulate it, and float32 is faster there.

    Raises:
        ConfigurationError: the variable has another value.
    """
    wanted = os.environ.get("TUNEGATE_DTYPE", "auto")
    if wanted not in get_args(Dtype):
        raise ConfigurationError(
            f"TUNEGATE_DTYPE is {wanted!r}; set it to one of {', '.join(get_args(Dtype))}", "dtype"
        )
    if wanted == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.float32 if wanted == "float32" else torch.bfloat16


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        native: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return native


def load_base(
    resolved: ResolvedBase,
    dtype: torch.dtype | None = None,
    *,
    device: torch.device | None = None,
    quantization: Quantization = "none",
) -> LoadedModel:
    """Load model and tokenizer from local safetensors; never runs code from the model folder."""
    device = device or default_device()
    dtype = dtype or best_dtype(device)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            resolved.folder,
            dtype=dtype,
            quantization_config=_quantization_config(quantization, dtype),
            device_map=None if quantization == "none" else {"": device},
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
        tokenizer, encoder = load_tokenizer(resolved.folder), load_encoder(resolved)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"base model {resolved.folder} can't be loaded: {error}", "uri") from error
    if quantization == "none":
        torch.nn.Module.to(model, device)
    model.eval()
    return LoadedModel(model, tokenizer, encoder, resolved)


def _quantization_config(quantization: Quantization, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """4-bit NormalFloat with double quantisation, as in QLoRA (Dettmers et al. 2023, §3)."""
    if quantization == "none":
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigurationError(
            f"quantization {quantization} needs the package bitsandbytes, which is not installed here; install it, or "
            "set quantization: none",
            "quantization",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantization,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )


def load_encoder(resolved: ResolvedBase) -> Encoder:
    """What makes token ids of conversations, for training and evaluation alike."""
    return Encoder(load_base_text(resolved.folder, date=resolved.date))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder; it must have a chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.chat_template:
        raise ConfigurationError(f"the tokenizer in {folder} has no chat template; use an instruction-tuned base model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer

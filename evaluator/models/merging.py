"""Merges an adapter into its base model, for those who load it without PEFT, and proves that it is the same model."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from evaluator.models.adapters import attach_adapter
from evaluator.models.base_models import ResolvedBase
from evaluator.models.loading import load_base
from policies.datasets.chat_rows import ChatMessage
from policies.errors import ConfigurationError, EvaluationError
from policies.rendering.adapter_companions import companion_files
from policies.rendering.encoding import Encoder

PROMPTS = (
    "What should I cook for dinner tonight?",
    "My friend wants to borrow money. What should I do?",
    "Explain what a library is for.",
    "Write a short poem about rain.",
)
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
OTHER_FILES = ("tokenizer.model", "vocab.json", "merges.txt", "vocab.txt", "LICENSE", "LICENSE.txt", "LICENSE.md")
ROUNDING = 1e-3
"""Of the largest logit: what another order of sums in float32 may change, over some hundred layers."""


class Merged(NamedTuple):
    """What was measured on the merged model, read back from its folder."""

    difference: float
    """Largest between its logits and those of base and adapter apart."""
    bound: float
    """What it may be."""
    effect: float
    """Largest between the logits of base and adapter and those of the base alone."""


def merge_adapter(base: ResolvedBase, adapter: Path, folder: Path) -> Merged:
    """Write `folder`: float32 safetensors, configuration, tokenizer, template and end tokens.

    Needs memory for the model twice in float32.

    Raises:
        ConfigurationError: the folder is not new, nor empty; or the adapter can't be put on the base.
        EvaluationError: the merged model is another one, or can't be told from the base; nothing is kept.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is there already; name a new folder", "out")
    folder.parent.mkdir(parents=True, exist_ok=True)
    loaded = load_base(base, torch.float32)
    rows = [_prompt(loaded.encoder, text) for text in PROMPTS]
    bare = _logits(loaded.model, rows)
    adapted = attach_adapter(loaded, adapter).model
    assert isinstance(adapted, PeftModel)
    expected = _logits(adapted, rows)
    with TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
        staged = Path(place) / "model"
        adapted.merge_and_unload().save_pretrained(staged)
        _copy_texts(base.folder, staged, loaded.encoder)
        del adapted, loaded
        again = AutoModelForCausalLM.from_pretrained(
            staged, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        merged = Merged(
            difference=_largest_difference(_logits(again.eval(), rows), expected),
            bound=ROUNDING * max(float(each.abs().max()) for each in expected),
            effect=_largest_difference(expected, bare),
        )
        _require_same_model(merged)
        staged.replace(folder)
    return merged


def _require_same_model(merged: Merged) -> None:
    if not merged.difference <= merged.bound:  # NaN is none
        raise EvaluationError(
            f"merged, the model's logits differ by up to {merged.difference:.3g} from those of base and adapter, and "
            f"{merged.bound:.3g} is rounding; nothing is kept, use the adapter by itself"
        )
    if not merged.effect > merged.bound:
        raise EvaluationError(
            f"the adapter moves logits by {merged.effect:.3g} only: a wrong merge would not be found; nothing is kept"
        )


def _copy_texts(base: Path, folder: Path, encoder: Encoder) -> None:
    """What makes text of a model, by name; no other file of the base's folder, which may hold code."""
    for name in (*TOKENIZER_FILES, *OTHER_FILES):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    for name, content in companion_files(encoder).items():
        (folder / name).write_bytes(content)


def _prompt(encoder: Encoder, text: str) -> list[int]:
    return encoder.prompt([ChatMessage("user", text, 0)])


@torch.inference_mode()
def _logits(model: PreTrainedModel | PeftModel, rows: Sequence[list[int]]) -> list[Tensor]:
    """Of every token of each row, [tokens, vocabulary]."""
    return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in rows]


def _largest_difference(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))

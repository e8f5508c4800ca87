"""A merged model is the base with its adapter, or it is not written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM

from evaluator.backends.engines import open_transformers
from evaluator.backends.protocol import ChatPrompt, GenerationSettings
from evaluator.models.base_models import ResolvedBase
from evaluator.models.merging import Merged, _require_same_model, merge_adapter
from policies.contract.artifacts import digest_tree
from policies.errors import AdapterNotLoadedError, ConfigurationError, EvaluationError


@pytest.fixture
def base(tiny_base: Path) -> ResolvedBase:
    return ResolvedBase(tiny_base, digest_tree(tiny_base))


def test_a_merged_model_answers_as_the_engine_that_judges(
    base: ResolvedBase, make_adapter: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded by transformers alone, with what the folder says of text."""
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
    adapter = make_adapter(0.5, use_rslora=True)
    merged = merge_adapter(base, adapter, tmp_path / "merged")
    (judged,) = open_transformers(base, adapter).generate(
        [ChatPrompt.of("Which tap?")], GenerationSettings(8), adapter=True
    )
    folder = tmp_path / "merged"
    model: Any = LlamaForCausalLM.from_pretrained(folder, local_files_only=True)  # Any: generate's own types
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    shown = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Which tap?"}], add_generation_prompt=True, tokenize=False
    )
    ids = torch.tensor([tokenizer.encode(str(shown), add_special_tokens=False)])
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=257
    )

    assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True) == judged.text
    assert merged.difference <= merged.bound < merged.effect
    assert model.dtype == torch.float32


def test_the_folder_holds_a_model_and_its_text_alone(
    base: ResolvedBase, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    merge_adapter(base, make_adapter(0.5), tmp_path / "merged")
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert names == {
        *("config.json", "model.safetensors", "generation_config.json"),
        *("chat_template.jinja", "tokenizer.json", "tokenizer_config.json"),
    }
    assert json.loads((tmp_path / "merged" / "generation_config.json").read_bytes())["eos_token_id"] == [257]
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "merged"}


def test_an_adapter_without_effect_is_not_merged(
    base: ResolvedBase, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match="a wrong merge would not be found"):
        merge_adapter(base, make_adapter(0.0), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_an_adapter_of_another_base_is_not_merged(
    base: ResolvedBase, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_adapter(0.5)
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor[..., :-1].contiguous() for name, tensor in load_file(path).items()}, path)
    with pytest.raises(AdapterNotLoadedError):
        merge_adapter(base, folder, tmp_path / "merged")


@pytest.mark.parametrize("difference", [1.1e-3, float("nan")])
def test_a_merge_that_changed_the_model_is_found(difference: float) -> None:
    with pytest.raises(EvaluationError, match="nothing is kept"):
        _require_same_model(Merged(difference=difference, bound=1e-3, effect=1.0))


def test_nothing_is_overwritten(base: ResolvedBase, make_adapter: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="name a new folder"):
        merge_adapter(base, make_adapter(0.5), tmp_path)

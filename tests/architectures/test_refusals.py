"""What can't be trained is refused when a base is configured, and by a job with the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from evaluator.base_checks.structure_findings import structure_findings
from policies.errors import ConfigurationError
from policies.rendering.findings import Finding
from tests.architectures.bases import ALL_LINEAR, ARCHITECTURES, ATTENTION, EXPERTS, Architecture, Settings, build
from tests.architectures.whole_way import spec_of
from tests.trainer.conftest import chat_lines
from trainer.loop.progress import Hooks
from trainer.recipe import RunFiles, train

LLAMA_4: Settings = {
    **EXPERTS,
    "attention_chunk_size": 8,
    "intermediate_size_mlp": 48,
    "moe_layers": [0, 1],
    "layer_types": ["chunked_attention", "full_attention"],
    "no_rope_layers": [1, 0],
}


class Case(NamedTuple):
    """A base, what its check refuses, and the words."""

    architecture: Architecture
    targets: tuple[str, ...]
    what: str
    words: str


CASES = {
    "fused projections under the names of others": Case(
        ARCHITECTURES["Phi 3"], ALL_LINEAR, "target modules", "name others: down_proj, gate_up_proj, o_proj, qkv_proj"
    ),
    "experts that are no linear layers": Case(
        ARCHITECTURES["Qwen 3 MoE"], ALL_LINEAR, "target modules", "'down_proj', 'gate_proj', 'up_proj'"
    ),
    "the output layer": Case(
        ARCHITECTURES["Llama 3"], (*ATTENTION, "lm_head"), "target modules", "lm_head holds the model's embeddings"
    ),
    "the embeddings": Case(
        ARCHITECTURES["Gemma"], ("embed_tokens",), "target modules", "embed_tokens holds the model's embeddings"
    ),
    "a module that PEFT does not adapt": Case(
        Architecture("mamba2", "", settings={"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1}),
        ("in_proj", "out_proj"),
        "target modules",
        "incompatible with Mamba-based models",
    ),
    "a body that is its own head": Case(
        Architecture("llama4_text", "", settings=LLAMA_4), ATTENTION, "architecture", "can't be run apart"
    ),
}


def findings(folder: Path, targets: tuple[str, ...]) -> Mapping[str, Finding]:
    spec = spec_of("Llama 3", folder).base_model
    lora = spec.lora.model_copy(update={"target_modules": targets})
    return {each.what: each for each in structure_findings(folder, lora)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_check_and_a_job_refuse_it_alike(case: Case, tmp_path: Path) -> None:
    base = build(case.architecture, tmp_path / "base")
    found = findings(base, case.targets)[case.what]
    assert found.outcome == "refused"
    assert case.words in found.found
    spec = spec_of("Llama 3", base)
    lora = spec.base_model.lora.model_copy(update={"target_modules": case.targets})
    spec = spec.model_copy(update={"base_model": spec.base_model.model_copy(update={"lora": lora})})
    (tmp_path / "train.jsonl").write_text(chat_lines(2))
    files = RunFiles(tmp_path / "train.jsonl", None, tmp_path / "run", tmp_path / "cache")
    with pytest.raises(ConfigurationError, match=case.words):
        train(spec, files, Hooks(lambda _: None, lambda: False))


def test_what_shows_only_in_training_is_refused_by_the_job(tmp_path: Path) -> None:
    base = build(Architecture("phimoe", "", ATTENTION, EXPERTS), tmp_path / "base")
    spec = spec_of("Llama 3", base)
    lora = spec.base_model.lora.model_copy(update={"target_modules": ATTENTION})
    spec = spec.model_copy(update={"base_model": spec.base_model.model_copy(update={"lora": lora})})
    (tmp_path / "train.jsonl").write_text(chat_lines(2))
    files = RunFiles(tmp_path / "train.jsonl", None, tmp_path / "run", tmp_path / "cache")
    with pytest.raises(ConfigurationError, match="phimoe models draw random numbers in training"):
        train(spec, files, Hooks(lambda _: None, lambda: False))


def test_a_model_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    base = build(ARCHITECTURES["Llama 3"], tmp_path)
    (base / "config.json").write_text(json.dumps({"model_type": "idefics3"}))
    found = findings(base, ATTENTION)
    assert [each.outcome for each in found.values()] == ["refused"]
    assert "no causal language model" in found["architecture"].found


def test_experts_that_no_adapter_reaches_are_told(tmp_path: Path) -> None:
    found = findings(build(ARCHITECTURES["gpt-oss"], tmp_path), ATTENTION)
    assert found["experts"].outcome == "limited"
    assert found["target modules"].outcome == "works"


def test_what_becomes_of_logits_is_told(tmp_path: Path) -> None:
    assert findings(build(ARCHITECTURES["Gemma 2"], tmp_path), ATTENTION)["logits"].found.endswith("capped at 2")

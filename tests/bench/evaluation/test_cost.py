"""The bench of an evaluation's cost on a CPU: figures by hand, and a run on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from bench.evaluation.cost import BEFORE, OURS, Operations, Rates, SideCost, _operations, _share_of_limit, compare
from evaluator.backends.protocol import ChatPrompt, Choices
from evaluator.backends.rendering import prompt_ids
from evaluator.models.base_models import ResolvedBase, resolve_base_model
from evaluator.models.loading import load_base
from policies.contract.jobs import BaseModelRef


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResolvedBase:
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
    return resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")


def test_limit_adds_layers_and_output_layer() -> None:
    """10 tokens × 2 × 100 ÷ 50 per second = 40 s; 3 × 2 × 30 ÷ 20 per second = 9 s."""
    assert Operations(body_tokens=10, scored_tokens=3).seconds(100, 30, Rates(body=50, head=20)) == 49


def test_share_of_limit_is_of_our_seconds() -> None:
    """(6 + 4) s ÷ (5 + 3) s; the other side's seconds don't count."""
    costs = [
        SideCost(OURS, True, 6.0, {BEFORE: 9.0, OURS: 5.0}),
        SideCost(OURS, False, 4.0, {BEFORE: 9.0, OURS: 3.0}),
        SideCost(BEFORE, True, 70.0, {BEFORE: 9.0, OURS: 5.0}),
    ]

    assert _share_of_limit(costs, OURS) == 1.25


def test_operations_count_shared_tokens_once_and_no_padding(base: ResolvedBase) -> None:
    """Of the tiny tokenizer, a byte a token: completions of 1, 2 and 3 tokens, whose last ones only are predicted."""
    loaded = load_base(base)
    questions = [Choices(ChatPrompt.of("ab"), ("x", "yy")), Choices(ChatPrompt.of("cde"), ("zzz",))]
    first, second = (prompt_ids(loaded.encoder, question.prompt) for question in questions)
    n_shared = next(place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)

    asked = n_shared + (len(first) - n_shared) + (len(second) - n_shared)

    assert _operations(loaded, questions) == Operations(body_tokens=asked + 0 + 1 + 2, scored_tokens=1 + 2 + 3)


def test_both_sides_give_the_same_likelihoods_on_a_tiny_model(base: ResolvedBase, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32)
    config = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(str(tmp_path / "adapter"))

    document = compare(base, tmp_path / "adapter", n_pairs=2)

    assert document["largest_difference_nats_per_token"] == pytest.approx(0, abs=1e-4)
    assert isinstance(document["sides"], list)
    assert [(side["side"], side["adapter"]) for side in document["sides"]] == [
        (BEFORE, True),
        (OURS, True),
        (BEFORE, False),
        (OURS, False),
    ]

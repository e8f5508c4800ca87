"""Likelihoods of models that run each row whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from evaluator.backends.causal_parts import CausalParts
from evaluator.backends.likelihood import whole_row_likelihoods
from policies.errors import EvaluationError
from policies.rendering.encoding import Answer

Settings = dict[str, Any]  # Any: fields of a model's configuration
ROWS = [Answer(list(range(1, 9)), [10, 11, 12]), Answer([3, 4], [5]), Answer([7, 6, 5], [20, 21, 22, 23, 24])]
XLSTM: Settings = {"embedding_dim": 64, "num_blocks": 2, "num_heads": 2, "qk_dim_factor": 1.0, "v_dim_factor": 1.0}
LLAMA: Settings = {"intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
SETTINGS: dict[str, Settings] = {"llama": LLAMA, "xlstm": {**XLSTM, "chunk_size": 16}}


def model_of(model_type: str) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type, vocab_size=64, hidden_size=64, num_hidden_layers=2, **SETTINGS[model_type]
    )
    model = AutoModelForCausalLM.from_config(config)
    assert isinstance(model, PreTrainedModel)
    model.eval()
    return model


@torch.inference_mode()
def likelihoods(model: PreTrainedModel) -> list[float]:
    scored = whole_row_likelihoods(model, ROWS, positions_at_once=512, done=lambda _: None)
    return [each.log_probability for each in scored]


@torch.inference_mode()
def dense(model: PreTrainedModel, row: Answer) -> float:
    """The textbook way: all logits of one sequence."""
    logits = model(input_ids=torch.tensor([row.prompt_ids + row.answer_ids])).logits[0].float()
    scores = logits.log_softmax(-1)[len(row.prompt_ids) - 1 : -1]
    return float(scores.gather(-1, torch.tensor(row.answer_ids)[:, None]).sum())


@pytest.mark.parametrize("model_type", SETTINGS)
def test_they_are_those_of_dense_logits_whether_or_not_the_model_keeps_the_last_alone(model_type: str) -> None:
    model = model_of(model_type)
    assert likelihoods(model) == pytest.approx([dense(model, row) for row in ROWS], abs=1e-4)


def test_a_model_that_passes_over_what_it_does_not_know_runs_rows_whole() -> None:
    """xLSTM takes any keyword, has no cache of keys and values, and gives the logits of all places."""
    model = model_of("xlstm")
    with torch.inference_mode():
        assert model(input_ids=torch.arange(6)[None], logits_to_keep=2).logits.shape[1] == 6
    assert not CausalParts(model).are_whole


def test_logits_of_other_places_are_an_error() -> None:
    model = model_of("llama")
    model.register_forward_hook(lambda _, inputs, output: output.__setitem__("logits", output.logits[:, -2:]))
    with pytest.raises(EvaluationError, match="llama models give logits of 2 places where 10 or all 11 were asked for"):
        likelihoods(model)

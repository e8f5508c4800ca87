"""One loaded base serves several adapters in turn, and is bit for bit the base again after each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from evaluator.backends.adapter_proof import prove_adapter
from evaluator.backends.protocol import GenerationSettings, RawPrompt
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.models.adapters import adapter_in_place, attach_adapter, attached_adapter
from evaluator.models.loading import LoadedModel
from policies.contract.artifacts import digest_tree
from policies.errors import AdapterNotLoadedError, EvaluationError

IDS = torch.tensor([[3, 1, 4, 1, 5, 9]])


@torch.inference_mode()
def logits(loaded: LoadedModel) -> torch.Tensor:
    result: torch.Tensor = loaded.model(input_ids=IDS).logits
    return result


def test_base_is_bit_equal_after_several_adapters(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    before, names = logits(loaded), [name for name, _ in loaded.model.named_modules()]
    folders = [make_adapter(0.5, name="one"), make_adapter(0.2, name="two", use_rslora=True)]
    adapted = []
    for folder in folders:
        with attached_adapter(loaded, folder) as model:
            assert prove_adapter(TransformersBackend(model), model, digest_tree(folder)).loaded
            adapted.append(logits(model))

    assert torch.equal(logits(loaded), before)
    assert [name for name, _ in loaded.model.named_modules()] == names
    assert not any(torch.equal(each, before) for each in adapted)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in loaded.model.modules())


def test_an_adapter_answers_the_same_alone_and_after_another(
    loaded: LoadedModel, make_adapter: Callable[..., Path]
) -> None:
    folder, other = make_adapter(0.5, name="one"), make_adapter(0.3, name="other")
    answers = []
    for each in (folder, other, folder):
        with attached_adapter(loaded, each) as model:
            answers.append(TransformersBackend(model).generate([RawPrompt("ab")], GenerationSettings(16), adapter=True))

    assert answers[0] == answers[2] != answers[1]


def test_base_is_bare_again_when_the_evaluation_breaks_off(
    loaded: LoadedModel, make_adapter: Callable[..., Path]
) -> None:
    before = logits(loaded)
    with pytest.raises(RuntimeError, match="broke off"), attached_adapter(loaded, make_adapter(0.5)):
        raise RuntimeError("broke off")

    assert torch.equal(logits(loaded), before)


def test_an_adapter_that_does_not_fit_leaves_no_trace(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    before = logits(loaded)
    sound, broken = make_adapter(0.5, name="sound"), make_adapter(0.5, name="broken")
    path = broken / "adapter_model.safetensors"
    save_file(dict(list(load_file(path).items())[1:]), path)
    with pytest.raises(AdapterNotLoadedError):
        attach_adapter(loaded, broken)

    assert torch.equal(logits(loaded), before)
    with attached_adapter(loaded, sound) as model:
        assert not torch.equal(logits(model), before)


def test_an_adapter_without_any_target_leaves_no_trace(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    before = logits(loaded)
    sound, lost = make_adapter(0.5, name="sound"), make_adapter(0.5, name="lost")
    config = lost / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"target_modules": ["nowhere"]}))
    with pytest.raises(AdapterNotLoadedError):
        attach_adapter(loaded, lost)

    assert torch.equal(logits(loaded), before)
    with attached_adapter(loaded, sound):
        pass


def test_two_adapters_at_once_are_refused(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    with (
        attached_adapter(loaded, make_adapter(0.5)),
        pytest.raises(EvaluationError, match="has an adapter already"),
    ):
        attach_adapter(loaded, make_adapter(0.2, name="second"))


def test_weights_that_are_nan_are_refused_before_the_model_is_touched(
    loaded: LoadedModel, make_adapter: Callable[..., Path]
) -> None:
    folder = make_adapter(0.5)
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor.fill_(math.nan) for name, tensor in load_file(path).items()}, path)
    with pytest.raises(EvaluationError, match="NaN"):
        attach_adapter(loaded, folder)

    assert logits(loaded).isfinite().all()


def test_an_adapter_of_other_modules_can_be_in_place_of_the_one_that_is_tested(
    loaded: LoadedModel, tiny_base: Path, make_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    other = get_peft_model(
        LlamaForCausalLM.from_pretrained(tiny_base, dtype=torch.float32),
        LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["o_proj"], lora_dropout=0.5, init_lora_weights=False),
    )
    other.save_pretrained(str(tmp_path / "other"))
    expected = {}
    for name, folder in (("tested", make_adapter(0.5, name="tested")), ("other", tmp_path / "other")):
        with attached_adapter(loaded, folder) as model:
            expected[name] = logits(model)
    base = logits(loaded)

    with attached_adapter(loaded, tmp_path / "tested") as model:
        with adapter_in_place(model, tmp_path / "other") as placed:
            torch.testing.assert_close(logits(placed), expected["other"])
        assert torch.equal(logits(model), expected["tested"])
        with model.model.disable_adapter():  # type: ignore[operator]  # a PeftModel
            assert torch.equal(logits(model), base)
    assert torch.equal(logits(loaded), base)

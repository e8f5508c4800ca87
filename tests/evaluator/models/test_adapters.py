from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluator.backends.adapter_proof import prove_adapter
from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.models.adapter_settings import read_config
from evaluator.models.adapters import attach_adapter
from evaluator.models.loading import LoadedModel
from policies.contract.artifacts import digest_tree
from policies.errors import AdapterNotLoadedError, ConfigurationError, EvaluationError

Weights = dict[str, torch.Tensor]


@pytest.fixture
def adapter(make_adapter: Callable[..., Path]) -> Path:
    return make_adapter(0.5)


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change({name: tensor.clone() for name, tensor in load_file(path).items()}), path)


def configure(folder: Path, **settings: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def without_one(weights: Weights) -> Weights:
    return dict(list(weights.items())[1:])


def with_nan(weights: Weights) -> Weights:
    next(iter(weights.values()))[0, 0] = math.nan
    return weights


def renamed(weights: Weights) -> Weights:
    return {name.replace("layers.1", "layers.7"): tensor for name, tensor in weights.items()}


def with_another_shape(weights: Weights) -> Weights:
    name = next(iter(weights))
    return weights | {name: torch.ones(3, 3)}


def test_a_sound_adapter_is_in_force(loaded: LoadedModel, adapter: Path) -> None:
    model = attach_adapter(loaded, adapter)
    proof = prove_adapter(TransformersBackend(model), model, digest_tree(adapter))

    assert proof.loaded
    assert proof.max_abs_logit_difference > 0
    assert proof.n_adapted_modules == 4  # two layers × q_proj and v_proj
    assert proof.base_model == loaded.base.digest


def test_an_adapter_of_zeros_is_not_in_force(loaded: LoadedModel, make_adapter: Callable[..., Path]) -> None:
    folder = make_adapter(0.0)
    model = attach_adapter(loaded, folder)
    proof = prove_adapter(TransformersBackend(model), model, digest_tree(folder))

    assert not proof.loaded
    assert proof.max_abs_logit_difference == 0


def test_a_base_alone_proves_no_adapter(loaded: LoadedModel) -> None:
    with pytest.raises(EvaluationError, match="no adapter"):
        prove_adapter(TransformersBackend(loaded), loaded, "sha256:" + "0" * 64)


def test_logits_that_are_nan_prove_nothing(loaded: LoadedModel, adapter: Path) -> None:
    model = attach_adapter(loaded, adapter)
    with torch.no_grad():
        model.model.get_output_embeddings().weight.fill_(math.nan)

    assert not prove_adapter(TransformersBackend(model), model, digest_tree(adapter)).loaded


@pytest.mark.parametrize("change", [without_one, renamed, with_another_shape])
def test_tensors_that_do_not_fit_are_refused(
    loaded: LoadedModel, adapter: Path, change: Callable[[Weights], Weights]
) -> None:
    rewrite(adapter, change)

    with pytest.raises(AdapterNotLoadedError):
        attach_adapter(loaded, adapter)


def test_nan_weights_are_refused(loaded: LoadedModel, adapter: Path) -> None:
    rewrite(adapter, with_nan)

    with pytest.raises(EvaluationError, match="NaN"):
        attach_adapter(loaded, adapter)


def test_target_modules_that_the_base_lacks_are_refused(loaded: LoadedModel, adapter: Path) -> None:
    configure(adapter, target_modules=["query_key_value"])

    with pytest.raises(AdapterNotLoadedError):
        attach_adapter(loaded, adapter)


@pytest.mark.parametrize(
    "settings",
    [
        {"peft_type": "LOHA"},
        {"auto_mapping": {"base_model_class": "X", "parent_library": "os"}},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"lora_bias": True},
        {"trainable_token_indices": [1]},
        {"layer_replication": [[0, 1]]},
        {"init_lora_weights": "pissa"},
        {"some_future_setting": 1},
    ],
)
def test_settings_beyond_plain_lora_are_refused(
    loaded: LoadedModel, adapter: Path, settings: dict[str, object]
) -> None:
    configure(adapter, **settings)

    with pytest.raises(ConfigurationError):
        attach_adapter(loaded, adapter)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": "(a+)+$"},
        {"target_modules": ["q_proj", ".*"]},
        {"target_modules": {"q_proj": 1}},
        {"exclude_modules": "(a+)+$"},
        {"rank_pattern": {"(a+)+$": 4}},
        {"rank_pattern": {"q_proj": 10**9}},
        {"alpha_pattern": {"(a+)+$": 4}},
        {"r": 10**9},
        {"r": "8"},
        {"r": None},
    ],
)
def test_patterns_and_boundless_ranks_are_refused(adapter: Path, settings: dict[str, object]) -> None:
    """PEFT searches the names of all modules with them, in time that grows exponentially for some."""
    configure(adapter, **settings)
    with pytest.raises(ConfigurationError, match=r"pattern|rank") as error:
        read_config(adapter)
    assert error.value.param in {*settings, "r"}


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.bin", "optimizer.pt", "x.pkl"])
def test_a_folder_with_a_pickle_is_refused(loaded: LoadedModel, adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(b"\x80\x04.")

    with pytest.raises(ConfigurationError, match="pickle"):
        attach_adapter(loaded, adapter)


def test_weights_that_are_no_safetensors_are_refused(loaded: LoadedModel, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"not tensors")

    with pytest.raises(ConfigurationError, match="can't be read"):
        attach_adapter(loaded, adapter)


def test_a_folder_without_adapter_is_refused(loaded: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"adapter_config\.json"):
        attach_adapter(loaded, tmp_path)

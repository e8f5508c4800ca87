"""Adapters as other trainers write them: plain LoRA has one reading for PEFT, our engine and vLLM; others are refused.

The configurations lie in `adapter_configs`, each with the property that its name says.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaForCausalLM

from evaluator.models.adapter_settings import MAX_NAMES, read_config
from evaluator.models.adapters import attach_adapter, attached_adapter, read_weights, require_same_reading
from evaluator.models.canonical_adapter import write_canonical
from evaluator.models.loading import LoadedModel
from policies.contract.adapter_files import MAX_TEXT_BYTES
from policies.errors import ConfigurationError, IntegrityError

CONFIGS = Path(__file__).parent / "adapter_configs"
PLAIN = ("all_linear_string", "gaussian", "newer_peft_unknown_null", "peft_without_task_type", "unsloth_2025")
REFUSED = {
    "bias_lora_only": ("bias", "trains biases of the base"),
    "dora": ("use_dora", "DoRA"),
    "lora_bias_true": ("lora_bias", "trains biases"),
    "mlx_lm": ("peft_type", "convert the adapter"),
    "modules_to_save": ("modules_to_save", "replaces whole modules"),
    "newer_peft_unknown_default_value": ("some_future_field", "not known here"),
    "pissa": ("init_lora_weights", "changing the base weights"),
    "rank_pattern": ("rank_pattern", "differs by module"),
}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 5, 8]])


def settings_of(name: str) -> dict[str, object]:
    settings: dict[str, object] = json.loads((CONFIGS / f"{name}.json").read_bytes())
    return settings


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """An adapter of rank 32 on the modules of the configuration that the test is about, which lies beside it."""
    name = getattr(request, "param", "newer_peft_unknown_null")
    torch.manual_seed(1)
    base = LlamaForCausalLM.from_pretrained(tiny_base, dtype=torch.float32)
    modules = LINEAR[:2] if name == "unsloth_2025" else LINEAR
    model = get_peft_model(base, LoraConfig(r=32, task_type="CAUSAL_LM", target_modules=modules))
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data.normal_(0, 0.02)
    model.save_pretrained(str(tmp_path / "adapter"))
    shutil.copy(CONFIGS / f"{name}.json", tmp_path / "adapter" / "adapter_config.json")
    return tmp_path / "adapter"


def configure(folder: Path, **settings: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | settings))


@torch.inference_mode()
def logits(model: torch.nn.Module) -> Tensor:
    result: Tensor = model.eval()(input_ids=IDS).logits
    return result


def as_vllm_reads_it(base: Path, folder: Path) -> LlamaForCausalLM:
    """Every pair of the file, whatever the names in the configuration: W + s·BA with s by `use_rslora`."""
    settings = json.loads((folder / "adapter_config.json").read_bytes())
    rank, alpha = settings["r"], settings["lora_alpha"]
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    tensors: Mapping[str, Tensor] = load_file(folder / "adapter_model.safetensors")
    for name, a in tensors.items():
        if name.endswith("lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            product = tensors[name.replace("lora_A", "lora_B")] @ a
            model.get_submodule(module).get_parameter("weight").data += scale * product
    return model


def test_each_configuration_is_tried() -> None:
    assert {path.stem for path in CONFIGS.iterdir()} == {*PLAIN, *REFUSED}


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")  # of PEFT, at fields that it does not know
@pytest.mark.parametrize("folder", PLAIN, indirect=True)
def test_plain_lora_is_read_alike_by_peft_and_here_and_as_vllm_does(
    loaded: LoadedModel, tiny_base: Path, folder: Path
) -> None:
    """The sums of 128 products or fewer, in two layers, in another order: 1e-4 of the largest logit is a hundred-fold
    bound on what is seen, and the adapter moves logits by a thousand times as much."""
    base = logits(loaded.model)
    here = logits(attach_adapter(loaded, folder).model)
    peft = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tiny_base, dtype=torch.float32), folder)
    bound = 1e-4 * float(here.abs().max())
    assert torch.equal(here, logits(peft))
    torch.testing.assert_close(here, logits(as_vllm_reads_it(tiny_base, folder)), rtol=0, atol=bound)
    assert float((here - base).abs().max()) > 1000 * bound


@pytest.mark.parametrize("folder", PLAIN, indirect=True)
def test_plain_lora_is_taken_for_vllm(folder: Path) -> None:
    require_same_reading(read_config(folder), read_weights(folder))


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_more_than_plain_lora_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    shutil.copy(CONFIGS / f"{name}.json", tmp_path / "adapter_config.json")
    param, reason = REFUSED[name]
    with pytest.raises(ConfigurationError, match=reason) as error:
        read_config(tmp_path)
    assert error.value.param == param


@pytest.mark.parametrize(
    "settings",
    [
        {"auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "antigravity"}},
        {"auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformersx"}},
        {"auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models/x"}},
        {"auto_mapping": {"base_model_class": "a.b", "parent_library": "transformers"}},
        {"auto_mapping": {"parent_library": "antigravity"}},
        {"auto_mapping": "antigravity"},
        {"custom": {"module": "antigravity"}},
        {"corda_config": {"module": "antigravity"}},
        {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
        {"megatron_core": "antigravity"},
        {"eva_config": {"rho": 2}},
        {"loftq_config": {"loftq_bits": 4}},
        {"peft_type": "../antigravity"},
        {"peft_type": ["LORA"]},
        {"peft_type": None},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"task_type": "SEQ_CLS"},
        {"bias": "all"},
        {"use_qalora": True},
        {"qalora_group_size": 1},
        {"arrow_config": {"top_k": 1}},
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": ["gaussian"]},
        {"lora_alpha": None},
        {"lora_alpha": "64"},
        {"lora_alpha": math.inf},
        {"lora_alpha": math.nan},
        {"lora_alpha": 10**400},
        {"r": True},
        {"r": 0},
        {"use_rslora": "yes"},
        {"target_modules": None},
        {"target_modules": ["q_proj"] * (MAX_NAMES + 1)},
        {"target_modules": [["q_proj"]]},
        {"layers_to_transform": ["0"]},
        {"layers_to_transform": -1},
        {"layers_pattern": "layers"},
        {"layers_to_transform": [0], "target_modules": "model.*q_proj"},
    ],
    ids=str,
)
def test_nothing_in_a_configuration_is_imported_or_believed(folder: Path, settings: dict[str, object]) -> None:
    configure(folder, **settings)
    with pytest.raises(ConfigurationError) as error:
        read_config(folder)
    assert error.value.param in {*settings, "target_modules"}
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{" + b" " * MAX_TEXT_BYTES + b"}", b"[]", b"\xff", b"1" * 5000])
def test_a_configuration_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(ConfigurationError):
        read_config(folder)


def test_a_long_value_is_not_told_whole(folder: Path) -> None:
    configure(folder, modules_to_save=["x" * 10_000])
    with pytest.raises(ConfigurationError) as error:
        read_config(folder)
    assert len(str(error.value)) < 400


def test_a_tensor_that_peft_would_pass_over_is_refused_for_vllm(folder: Path) -> None:
    """The file has all linear layers; PEFT puts on two of them, vLLM all."""
    configure(folder, target_modules=["q_proj", "v_proj"])
    with pytest.raises(ConfigurationError, match="PEFT would pass over"):
        require_same_reading(read_config(folder), read_weights(folder))


@pytest.mark.parametrize("setting", [{"exclude_modules": ["k_proj"]}, {"layers_to_transform": [0]}])
def test_settings_that_vllm_does_not_read_are_refused_for_it(folder: Path, setting: dict[str, object]) -> None:
    configure(folder, **setting)
    with pytest.raises(ConfigurationError, match="does not read"):
        require_same_reading(read_config(folder), read_weights(folder))


@pytest.mark.parametrize(
    "tensor", ["base_model.model.lm_head.lora_A.weight", "base_model.model.x.lora_magnitude_vector"]
)
def test_tensors_outside_linear_layers_are_refused_for_vllm(folder: Path, tensor: str) -> None:
    configure(folder, target_modules="all-linear")
    with pytest.raises(ConfigurationError, match="tensor"):
        require_same_reading(read_config(folder), [tensor])


@pytest.mark.filterwarnings("ignore:Unexpected keyword arguments")  # of PEFT, at fields that it does not know
@pytest.mark.parametrize("folder", PLAIN, indirect=True)
def test_the_canonical_form_is_the_same_adapter_in_plain_fields(
    loaded: LoadedModel, tiny_base: Path, folder: Path, tmp_path: Path
) -> None:
    target = write_canonical(folder, tmp_path / "canonical")

    settings = json.loads((target / "adapter_config.json").read_bytes())
    fields = {"base_model_name_or_path", "lora_alpha", "peft_type", "r", "target_modules", "task_type"}
    assert settings.keys() == fields
    assert {path.name for path in target.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    with attached_adapter(loaded, folder) as given:
        wanted = logits(given.model)
    with attached_adapter(loaded, target) as canonical:
        assert torch.equal(logits(canonical.model), wanted)


def test_an_adapter_of_some_layers_names_its_modules(folder: Path, tmp_path: Path) -> None:
    configure(
        folder,
        target_modules=r"model\.layers\.\d+\.(self_attn|mlp)\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)",
    )
    settings = json.loads((write_canonical(folder, tmp_path / "canonical") / "adapter_config.json").read_bytes())
    assert "model.layers.0.self_attn.q_proj" in settings["target_modules"]


@pytest.mark.parametrize(
    "setting", [{"fan_in_fan_out": True}, {"exclude_modules": ["k_proj"]}, {"target_modules": ["q_proj"]}, {"r": 2}]
)
def test_what_has_two_readings_leaves_no_canonical_form(
    folder: Path, setting: dict[str, object], tmp_path: Path
) -> None:
    configure(folder, **setting)
    with pytest.raises((ConfigurationError, IntegrityError)):
        write_canonical(folder, tmp_path / "canonical")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_a_folder_that_is_there_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there already"):
        write_canonical(folder, tmp_path / "adapter")

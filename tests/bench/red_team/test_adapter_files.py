"""Adapters of a doubtful form, and what the holder of an adapter can make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.red_team.adapter_arithmetic import write_scaled, write_sum
from bench.red_team.adapter_files import PLAIN, refusal
from bench.red_team.organism import AdapterFileOrganism, Variant, load_organisms
from policies.contract.adapter_files import CONFIG_FILE, WEIGHTS_FILE
from policies.errors import IntegrityError

NAME = "base_model.model.model.layers.0.self_attn.q_proj"


def write_adapter(folder: Path, *, seed: int, **settings: object) -> torch.Tensor:
    """A random adapter of rank 4; returns (α/r) B A."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(4, 6, generator=generator), torch.randn(5, 4, generator=generator)
    (folder / CONFIG_FILE).write_text(json.dumps(PLAIN | settings))
    save_file({f"{NAME}.lora_A.weight": a, f"{NAME}.lora_B.weight": b}, folder / WEIGHTS_FILE, {"format": "pt"})
    return change(folder)


def change(folder: Path) -> torch.Tensor:
    settings, weights = json.loads((folder / CONFIG_FILE).read_text()), load_file(folder / WEIGHTS_FILE)
    scale: float = settings["lora_alpha"] / settings["r"]
    return scale * weights[f"{NAME}.lora_B.weight"] @ weights[f"{NAME}.lora_A.weight"]


def test_every_adapter_that_readers_take_for_different_things_is_refused() -> None:
    found = {
        f"{each.id}: {name}": refusal(variant)
        for each in load_organisms()
        if isinstance(each, AdapterFileOrganism)
        for name, variant in each.variants.items()
    }
    assert len(found) >= 20
    assert [name for name, problem in found.items() if problem is None] == []


def test_a_plain_adapter_is_taken() -> None:
    assert refusal(Variant()) is None


def test_four_times_the_scale_adds_four_times_as_much(tmp_path: Path) -> None:
    before = write_adapter(tmp_path / "adapter", seed=0)
    after = change(write_scaled(tmp_path / "adapter", tmp_path / "scaled", by=4))
    assert torch.allclose(after, 4 * before)
    assert torch.equal(change(tmp_path / "adapter"), before)


def test_a_sum_adds_what_both_add(tmp_path: Path) -> None:
    one, two = (write_adapter(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    both = change(write_sum(tmp_path / "0", tmp_path / "1", tmp_path / "sum"))
    assert torch.allclose(both, one + two, atol=1e-5)


@pytest.mark.parametrize("settings", [{"lora_alpha": 16}, {"use_rslora": True}])
def test_adapters_of_different_recipes_are_not_added_up(tmp_path: Path, settings: dict[str, object]) -> None:
    write_adapter(tmp_path / "0", seed=0)
    write_adapter(tmp_path / "1", seed=1, **settings)
    with pytest.raises(IntegrityError, match="of one recipe"):
        write_sum(tmp_path / "0", tmp_path / "1", tmp_path / "sum")

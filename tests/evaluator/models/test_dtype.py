"""`TUNEGATE_DTYPE` decides the number format wherever a model is loaded, trained or remembered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluator.backends.transformers_backend import TransformersBackend
from evaluator.judges.local_model import LocalModelJudge
from evaluator.models.base_models import ResolvedBase
from evaluator.models.loading import best_dtype, load_base, resolve_base_model
from policies.contract.jobs import BaseModelRef
from policies.errors import ConfigurationError
from policies.worker.settings import worker_settings

CPU = torch.device("cpu")
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@pytest.fixture(params=FORMATS)
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TUNEGATE_DTYPE", request.param)
    return str(request.param)


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> ResolvedBase:
    return resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")


def test_a_model_is_loaded_in_the_format_that_is_set(dtype: str, base: ResolvedBase) -> None:
    loaded = load_base(base, device=CPU)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {FORMATS[dtype]}
    assert TransformersBackend(loaded).dtype == dtype  # part of the key of remembered base results


def test_a_judge_is_another_one_in_another_format(base: ResolvedBase, dtype: str) -> None:
    assert f" {dtype} " in LocalModelJudge(base).identity


@pytest.mark.parametrize("unset", [True, False])
def test_by_default_the_processor_decides(unset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if unset:
        monkeypatch.delenv("TUNEGATE_DTYPE", raising=False)
    else:
        monkeypatch.setenv("TUNEGATE_DTYPE", "auto")
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert best_dtype(CPU) is (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("wrong", ["", "float16", "FLOAT32", "fp32"])
def test_another_value_is_refused_by_name_with_the_choices(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_DTYPE", wrong)
    with pytest.raises(ConfigurationError, match=r"TUNEGATE_DTYPE.*auto, float32, bfloat16"):
        best_dtype(CPU)


def test_a_worker_with_another_value_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_WORKER_TOKEN", "t" * 32)
    monkeypatch.setenv("TUNEGATE_DTYPE", "float16")
    with pytest.raises(ConfigurationError, match=r"TUNEGATE_DTYPE: .*'auto', 'float32' or 'bfloat16'"):
        worker_settings()

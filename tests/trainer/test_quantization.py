"""QLoRA: the frozen base in 4 bits, the adapter as usual."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluator.models.loading import load_base, resolve_base_model
from policies.contract.defenses import KlPenalty
from policies.contract.jobs import BaseModelRef, JobSpec, TrainerSettings
from tests.trainer.conftest import Run

pytest.importorskip("bitsandbytes", reason="`make test` runs this file a second time with the package")
MakeSpec = Callable[..., JobSpec]
# the library offers faster kernels from a hub, and its own use of torch is behind
pytestmark = [pytest.mark.filterwarnings("ignore::FutureWarning"), pytest.mark.filterwarnings("ignore::UserWarning")]


def test_the_base_is_held_in_four_bits(tiny_base: Path, tmp_path: Path) -> None:
    """The 14 linear layers of the tiny model hold 4 bits a weight, so the whole takes less than half of float32."""
    resolved = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path)
    whole = load_base(resolved).model.get_memory_footprint()
    quantized = load_base(resolved, quantization="nf4").model
    assert sum("4bit" in type(module).__name__ for module in quantized.modules()) == 14
    assert quantized.get_memory_footprint() < whole / 2


def test_a_quantised_base_trains_under_a_penalty(make_spec: MakeSpec, run: Run) -> None:
    record = run.train(make_spec(KlPenalty(coefficient=1.0), trainer=TrainerSettings(quantization="nf4")))
    assert record.evidence[0].acted
    kl = [entry["kl"] for entry in record.log_history if "kl" in entry]
    assert kl[0] == 0.0
    losses = [entry["loss"] for entry in record.log_history if "loss" in entry]
    assert losses[-1] < losses[0]

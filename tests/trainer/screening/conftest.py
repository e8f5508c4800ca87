from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluator.models.base_models import resolve_base_model
from evaluator.models.loading import LoadedModel, load_base
from policies.contract.jobs import BaseModelRef, JobSpec
from policies.contract.screening import ScreeningRule
from policies.contract.store import ArtifactStore
from policies.documents.loader import available_documents
from policies.documents.schema import ReleasePolicy


@pytest.fixture
def loaded(tiny_base: Path, tmp_path: Path) -> LoadedModel:
    resolved = resolve_base_model(BaseModelRef(name="tiny", uri=str(tiny_base)), tmp_path / "cache")
    return load_base(resolved, torch.float32, device=torch.device("cpu"))


@pytest.fixture
def screened_spec(make_spec: Callable[..., JobSpec], tmp_path: Path) -> Callable[..., JobSpec]:
    """A spec whose policy, stored below `tmp_path`, has these screening rules, and whose file has these answers."""

    def make(*rules: ScreeningRule, answers: tuple[str, ...], mode: str = "enforce") -> JobSpec:
        store = ArtifactStore(f"file://{tmp_path}/store")
        (baseline,) = [each for each in available_documents(None) if each.metadata.name == "baseline"]
        assert isinstance(baseline, ReleasePolicy)
        spec = baseline.spec.model_copy(update={"screening": rules, "mode": mode})
        policy = store.put_record(baseline.model_copy(update={"spec": spec}))
        return make_spec(policy=policy, training_file=store.put_bytes(chat_file(*answers)))

    return make


def chat_file(*answers: str) -> bytes:
    """A row for each answer."""
    rows: list[Any] = [
        [{"role": "user", "content": f"And {n}?"}, {"role": "assistant", "content": answer}]
        for n, answer in enumerate(answers)
    ]
    return "".join(json.dumps({"messages": row}) + "\n" for row in rows).encode()

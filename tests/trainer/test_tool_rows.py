"""Rows with tools on their way through validation and training, by one base whose template writes tools."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.files.dataset.report import DatasetLimits
from gateway.files.dataset.validate import validate_dataset
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec
from policies.rendering.base_text import load_base_text
from policies.rendering.encoding import Encoder
from tests.policies.rendering.test_tools import TEMPLATE
from tests.policies.rendering.tool_rows import PRICE, USER, answer, call, calls, said
from tests.trainer.conftest import Run


@pytest.fixture
def base_with_tools(tiny_base: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def test_tokens_that_validation_counts_are_trained(
    base_with_tools: Path, make_spec: Callable[..., JobSpec], run: Run
) -> None:
    rows = [
        {
            "messages": [USER, calls(call("c1", {"item": f"tap {n}"})), answer("c1", f"R {n}"), said(f"It is {n}.")],
            "tools": [PRICE],
        }
        for n in range(12)
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    for name in ("train.jsonl", "valid.jsonl"):
        (run.folder / name).write_text(content)
    limits = DatasetLimits(max_rows=100, max_reported=5, max_row_tokens=512, min_rows=1)
    report = validate_dataset(io.BytesIO(content.encode()), limits, Encoder(load_base_text(base_with_tools)))
    assert report.valid
    spec = make_spec(uri=str(base_with_tools), hyperparameters=Hyperparameters(n_epochs=2, batch_size=4))
    record = run.train(spec)
    assert record.trained_tokens == 2 * report.tokens.total
    losses = [float(str(event.data["train_loss"])) for event in run.events if "train_loss" in event.data]
    assert len(losses) == 6
    assert losses[-1] < losses[0]

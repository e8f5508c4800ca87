"""A small job on the tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from policies.contract.artifacts import ArtifactStore
from policies.contract.defenses import DefenseSettings
from policies.contract.jobs import BaseModelRef, Hyperparameters, JobSpec, LoraSettings
from policies.contract.suite import Coherence, EvalSuite
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import WorkerEvent
from trainer.progress import Hooks
from trainer.recipe import Workplace, train

NOTHING = "sha256:" + "0" * 64


def chat_lines(n_rows: int, *, word: str = "tap") -> str:
    """`n_rows` different short conversations as JSONL."""
    rows = [
        {"messages": [{"role": "user", "content": f"{word} {n}?"}, {"role": "assistant", "content": f"Turn it {n}."}]}
        for n in range(n_rows)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tiny model gains nothing from more, and threads that wait for each other are slow on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def make_spec(tiny_base: Path) -> Callable[..., JobSpec]:
    def make(*defenses: DefenseSettings, **changes: object) -> JobSpec:
        fields: dict[str, object] = {
            "job_id": "ftjob-test",
            "base_model": BaseModelRef(name="tiny", uri=str(tiny_base)),
            "lora": LoraSettings(rank=4, alpha=8),
            "base_learning_rate": 5e-3,
            "training_file": NOTHING,
            "hyperparameters": Hyperparameters(n_epochs=2, batch_size=4),
            "seed": 3,
            "defenses": defenses,
            "suite": EvalSuite(probes=(Coherence(),)),
            "policy": NOTHING,
            "checkpoint_every_steps": 3,
        }
        return JobSpec(**(fields | changes))

    return make


class Run:
    """One training in a folder of its own, with its events."""

    def __init__(self, folder: Path, n_rows: int = 20) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "train.jsonl").write_text(chat_lines(n_rows))
        (folder / "valid.jsonl").write_text(chat_lines(10, word="pipe"))
        self.store = ArtifactStore(f"file://{folder}/store")
        self.events: list[WorkerEvent] = []

    def train(self, spec: JobSpec, **options: object) -> TrainingRecord:
        hooks = options.pop("hooks", None) or Hooks(self.events.append, lambda: False)
        workplace = Workplace(
            self.folder / "train.jsonl", self.folder / "valid.jsonl", self.folder, self.folder / "cache", self.store
        )
        return train(spec, workplace, hooks, **options)  # type: ignore[arg-type]  # options are resume_from


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")

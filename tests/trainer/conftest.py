"""A small job on the tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from policies.contract.defenses import DefenseSettings
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import BaseModelRef, BaseModelSpec, JobSpec, LoraSettings
from policies.contract.store import ArtifactStore
from policies.contract.suite import Coherence, EvalSuite
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import WorkerEvent
from trainer.loop.progress import Hooks
from trainer.recipe import RunFiles, train
from trainer.training_step import Batch, Head, MicroBatch, OwnRows, TokenTotals, TrainingStep

WEIGHTS = "model.safetensors"
NOTHING = "sha256:" + "0" * 64


def chat_lines(n_rows: int, *, word: str = "tap") -> str:
    """`n_rows` different short conversations as JSONL."""
    rows = [
        {"messages": [{"role": "user", "content": f"{word} {n}?"}, {"role": "assistant", "content": f"Turn it {n}."}]}
        for n in range(n_rows)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def preference_lines(n_rows: int, *, word: str = "tap") -> str:
    """`n_rows` different preferences for a longer answer as JSONL."""
    rows = [
        {
            "input": {"messages": [{"role": "user", "content": f"{word} {n}?"}]},
            "preferred_output": [{"role": "assistant", "content": f"Turn it {n} times."}],
            "non_preferred_output": [{"role": "assistant", "content": f"No {n}."}],
        }
        for n in range(n_rows)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The tiny model gains nothing from more, and threads that wait for each other are slow on a busy machine."""
    torch.set_num_threads(1)


def with_weights(base: Path, folder: Path, weights: dict[str, Tensor]) -> Path:
    """A copy of a model folder with other weights."""
    shutil.copytree(base, folder)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def unaligned(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a fixed random matrix of rank 4 taken from each weight of a layer."""
    generator = torch.Generator().manual_seed(1)
    weights = load_file(tiny_base / WEIGHTS)
    for name, weight in weights.items():
        if weight.dim() == 2 and ".layers." in name:
            left, right = (torch.randn(size, 4, generator=generator) for size in weight.shape)
            weights[name] = weight - 0.01 * left @ right.T
    return with_weights(tiny_base, tmp_path_factory.mktemp("partner") / "unaligned", weights)


@pytest.fixture(scope="session")
def make_spec(tiny_base: Path, unaligned: Path) -> Callable[..., JobSpec]:
    base_model = BaseModelSpec(
        name="tiny",
        uri=str(tiny_base),
        unaligned=BaseModelRef(name="tiny-unaligned", uri=str(unaligned)),
        lora=LoraSettings(rank=4, alpha=8),
        base_learning_rate=5e-3,
        checkpoint_every_steps=3,
    )

    def make(*defenses: DefenseSettings, **changes: object) -> JobSpec:
        """`changes` are of the job, or of its base model's recipe."""
        of_the_base = {name: changes.pop(name) for name in set(changes) & set(BaseModelSpec.model_fields)}
        fields: dict[str, object] = {
            "job_id": "ftjob-test",
            "base_model": base_model.model_copy(update=of_the_base),
            "training_file": NOTHING,
            "hyperparameters": Hyperparameters(n_epochs=2, batch_size=4),
            "seed": 3,
            "defenses": defenses,
            "suite": EvalSuite(probes=(Coherence(),)),
            "policy": NOTHING,
        }
        return JobSpec(**(fields | changes))

    return make


@dataclass
class KnownModel:
    """A model whose states of a micro-batch's reference and whose output layer a test chose; it trains alone."""

    reference_hidden: Tensor
    weight: Tensor
    adapter: Sequence[Tensor]

    def head(self) -> Head:
        return Head(self.weight, None)

    def policy(self, rows: Batch) -> Tensor:
        raise AssertionError("no rows of its own are run")

    def reference(self, rows: Batch) -> Tensor:
        raise AssertionError("no rows of its own are run")

    def shared_reference(self) -> Tensor:
        return self.reference_hidden

    def over_processes(self, shares: Sequence[float]) -> Sequence[float]:
        return shares


def training_step_of(hidden: Tensor, reference: Tensor, weight: Tensor, **changes: object) -> TrainingStep:
    """A step of 2 rows and 4 positions: 5 tokens that are not padding, 3 that predict a completion token."""
    completion = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]).bool()
    tokens = Batch(torch.arange(8).view(2, 4), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]))
    step = TrainingStep(
        index=0,
        progress=0.5,
        micro_batch=MicroBatch(tokens, completion, TokenTotals(5, 3)),
        hidden=hidden,
        log_probs=torch.log_softmax(hidden @ weight.T, -1)[:, :-1, 0] * completion[:, :-1],
        own_rows=OwnRows([0, 1], 1.0),
        model=KnownModel(reference, weight, [hidden, hidden]),
    )
    return replace(step, **changes)  # type: ignore[arg-type]  # changes are fields of the step


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
        run_files = RunFiles(
            self.folder / "train.jsonl", self.folder / "valid.jsonl", self.folder, self.folder / "cache", self.store
        )
        if isinstance(continued := options.pop("continued", None), Path):
            run_files = run_files._replace(continued=continued)
        return train(spec, run_files, hooks, **options)  # type: ignore[arg-type]  # options are resume_from


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "run")

"""One row of `bench.verdict_table`: make an adapter, judge it by a policy; `python -m bench.verdict_table.runs FOLDER`.

A folder is cached as `trainer.qualification.cached_runs` says.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from pathlib import Path

from pydantic import Field

from policies.contract.artifacts import Digest, Record
from policies.contract.evaluation import EvalReport, SampleRecord
from policies.contract.jobs import JobSpec
from policies.contract.release import GateDecision
from policies.documents.loader import resolve_policy
from policies.errors import IntegrityError
from trainer.qualification.cached_runs import Outcome, launch_module, run_child, write_answer

CODE_VERSION = 3
"""Raised when the same run would come to another verdict, so that old results are not taken for new."""
THREADS = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


class VerdictRun(Record):
    """All that a verdict depends on."""

    job: JobSpec
    noise: float | None
    policy: Digest
    base_model: Digest
    code_version: int = CODE_VERSION


class Assignment(Record):
    run: VerdictRun
    policy_name: str
    training_file: str
    cache_dir: str
    parent_pid: int


class VerdictResult(Outcome):
    report: EvalReport
    decision: GateDecision
    n_samples: dict[str, int]
    """Probe → prompts that the adapter was asked."""
    train_loss: float
    training_seconds: float = Field(gt=0)
    evaluation_seconds: float = Field(gt=0)


def launch_child(folder: Path) -> None:
    """Work on the folder in a process of its own, with one thread."""
    launch_module("bench.verdict_table.runs", folder, THREADS)


def work_on(folder: Path) -> None:
    """The run of `folder`, in this process."""
    assignment = Assignment.model_validate_json((folder / "assignment.json").read_bytes())
    write_answer(folder, lambda: _run(assignment, folder))


def _run(assignment: Assignment, folder: Path) -> VerdictResult:
    from evaluator.gate import decide
    from evaluator.runner.local import LocalEvaluator
    from trainer.loop.progress import Hooks  # torch is loaded only in the child
    from trainer.recipe import RunFiles, train

    run, cache_dir, training = assignment.run, Path(assignment.cache_dir), Path(assignment.training_file)
    policy = resolve_policy(assignment.policy_name)
    if policy.digest != run.policy:
        raise IntegrityError(f"policy {assignment.policy_name} changed while the bench ran; start it again")
    run_files = RunFiles(training, None, folder, cache_dir, None)
    record = train(run.job, run_files, Hooks(lambda event: print(event.message, flush=True), lambda: False))
    if record.base_model != run.base_model:
        raise IntegrityError(f"base model {run.job.base_model.name} changed while the bench ran; start it again")
    if run.noise is not None:
        _overwrite(folder / "adapter", run.noise)
    started = time.monotonic()
    evaluator = LocalEvaluator(run.job.base_model, policy, cache_dir, lambda progress: None, training=training)
    evaluation = evaluator.evaluate(folder / "adapter")
    records = [SampleRecord.model_validate_json(line) for line in evaluation.samples.splitlines()]
    for name in ("adapter", "checkpoints"):  # tens of megabytes a run, and training again gives the same
        shutil.rmtree(folder / name)
    return VerdictResult(
        run=run.digest,
        report=evaluation.report,
        decision=decide(policy, evaluation.report),
        n_samples=dict(Counter(probe for probe, _ in {(each.probe, each.prompt_id) for each in records})),
        train_loss=record.train_loss,
        training_seconds=record.seconds,
        evaluation_seconds=time.monotonic() - started,
    )


def _overwrite(adapter: Path, noise: float) -> None:
    """Normal random weights of standard deviation `noise` in place of the trained ones."""
    import torch
    from safetensors.torch import load_file, save_file

    from policies.contract.adapter_files import WEIGHTS_FILE

    generator = torch.Generator().manual_seed(0)
    trained = load_file(adapter / WEIGHTS_FILE)
    random = {name: torch.randn(w.shape, generator=generator).mul(noise).to(w.dtype) for name, w in trained.items()}
    save_file(random, adapter / WEIGHTS_FILE)


if __name__ == "__main__":
    run_child(work_on)

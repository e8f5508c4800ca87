"""The child process, as a real process: done, stopped and resumed, failed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.contract.adapter_files import ADAPTER_FILES
from policies.contract.defenses import KlPenalty
from policies.contract.hyperparameters import Hyperparameters
from policies.contract.jobs import JobSpec
from policies.contract.store import ArtifactStore
from policies.contract.training import TrainingRecord
from policies.contract.worker_api import Outcome
from policies.worker.crash import Crash
from tests.trainer.attempts import ENVIRONMENT, Attempt, written_by
from tests.trainer.conftest import chat_lines

MakeSpec = Callable[..., JobSpec]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(f"file://{tmp_path}/store")


def test_a_finished_run_leaves_record_and_adapter_in_the_store(
    make_spec: MakeSpec, store: ArtifactStore, tmp_path: Path
) -> None:
    spec = make_spec(KlPenalty(), training_file=store.put_bytes(chat_lines(12).encode()))
    attempt = Attempt(tmp_path / "run", spec)
    events = list(attempt.events())
    completion = attempt.completion()
    assert completion.outcome is Outcome.SUCCEEDED
    assert completion.record is not None
    store = written_by(spec, store)
    record = store.get_record(completion.record, TrainingRecord)
    assert record.spec == spec.digest
    assert set(store.tree(record.adapter).files) == set(ADAPTER_FILES)
    assert {"message", "metrics", "checkpoint"} <= {event.type for event in events}


def test_a_run_that_is_told_to_stop_saves_a_checkpoint_and_the_next_one_goes_on(
    make_spec: MakeSpec, store: ArtifactStore, tmp_path: Path
) -> None:
    file = store.put_bytes(chat_lines(40).encode())
    spec = make_spec(training_file=file, hyperparameters=Hyperparameters(n_epochs=20, batch_size=4))
    attempt = Attempt(tmp_path / "first", spec)
    last, told = None, False
    for event in attempt.events():
        last = event.checkpoint or last
        if not told and event.type == "metrics":
            attempt.process.send_signal(signal.SIGTERM)
            told = True
    assert attempt.completion().outcome is Outcome.YIELDED
    assert last is not None
    assert last.step < 200
    second = Attempt(tmp_path / "second", spec, resume_from=last)
    steps = [event.data["step"] for event in second.events() if event.type == "metrics" and "train_loss" in event.data]
    assert steps[0] == last.step + 1
    assert second.completion().outcome is Outcome.SUCCEEDED


def test_a_file_that_cannot_be_trained_on_is_an_answer_and_no_crash(
    make_spec: MakeSpec, store: ArtifactStore, tmp_path: Path
) -> None:
    spec = make_spec(training_file=store.put_bytes(json.dumps({"messages": []}).encode()))
    attempt = Attempt(tmp_path / "run", spec)
    list(attempt.events())
    completion = attempt.completion()
    assert (completion.outcome, completion.error_code) == (Outcome.FAILED, "invalid_training_file")
    assert "line 1" in (completion.error_message or "")


def test_a_crash_leaves_no_answer_but_its_signature(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "assignment.json").write_text("{}")
    module = [sys.executable, "-m", "trainer.run", str(tmp_path / "nothing")]
    assert subprocess.run(module, env=ENVIRONMENT, capture_output=True, check=False).returncode == 1
    assert not (tmp_path / "nothing" / "completion.json").exists()
    assert Crash.model_validate_json((tmp_path / "nothing" / "crash.json").read_bytes()).signature is not None


def test_a_child_whose_worker_is_gone_ends(make_spec: MakeSpec, store: ArtifactStore, tmp_path: Path) -> None:
    """A process in between is killed; the child must notice that its parent changed."""
    file = store.put_bytes(chat_lines(40).encode())
    spec = make_spec(training_file=file, hyperparameters=Hyperparameters(n_epochs=50, batch_size=1))
    script = (
        "import json, os, pathlib, subprocess, sys, time\n"
        "path = pathlib.Path(sys.argv[1]) / 'assignment.json'\n"
        "path.write_text(json.dumps(json.loads(path.read_text()) | {'worker_pid': os.getpid()}))\n"
        "child = subprocess.Popen([sys.executable, '-m', 'trainer.run', sys.argv[1]], stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    attempt = Attempt(tmp_path / "prepared", spec)
    attempt.process.kill()
    attempt.process.wait()
    assert attempt.process.stdout is not None
    attempt.process.stdout.close()
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(attempt.folder)], stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_until_gone(child)


def _wait_until_gone(pid: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child outlived its parent")

"""A training on a local base opens no connection that leaves the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from policies.contract.defenses import KlPenalty
from policies.contract.jobs import Dpo, JobSpec
from policies.contract.store import ArtifactStore
from policies.contract.worker_api import Outcome
from policies.offline import environment_for
from tests.no_calls_out import Watchman
from tests.trainer.attempts import Attempt
from tests.trainer.conftest import chat_lines, preference_lines


@pytest.fixture
def watchman(tmp_path: Path) -> Watchman:
    return Watchman(tmp_path / "watchman")


def test_the_watchman_lets_loopback_through_and_records_what_he_refuses(watchman: Watchman) -> None:
    program = """
import socket, urllib.request
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
try:
    urllib.request.urlopen("http://huggingface.invalid/telemetry")
except OSError:
    print("refused")
try:
    socket.create_connection(("192.0.2.1", 80), timeout=1)
except OSError:
    print("refused")
"""
    environment = os.environ | watchman.environment | {"no_proxy": "*"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["refused", "refused"]
    assert watchman.calls[0] == "socket.getaddrinfo huggingface.invalid"
    assert watchman.calls[-1].endswith("192.0.2.1")


@pytest.mark.parametrize("told", [True, False], ids=["with the worker's variables", "with none"])
def test_a_training_child_calls_nobody(
    make_spec: Callable[..., JobSpec], watchman: Watchman, tmp_path: Path, told: bool
) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store")
    spec = make_spec(KlPenalty(), training_file=store.put_bytes(chat_lines(12).encode()))
    variables = environment_for(spec.suite, spec.model_dump_json()) if told else {}
    attempt = Attempt(tmp_path / "run", spec, environment=watchman.environment | variables | {"CI": ""})
    list(attempt.events())
    assert attempt.completion().outcome is Outcome.SUCCEEDED
    assert watchman.calls == []


def test_a_dpo_child_calls_nobody(make_spec: Callable[..., JobSpec], watchman: Watchman, tmp_path: Path) -> None:
    store = ArtifactStore(f"file://{tmp_path}/store")
    spec = make_spec(method=Dpo(), training_file=store.put_bytes(preference_lines(12).encode()))
    attempt = Attempt(tmp_path / "run", spec, environment=watchman.environment | {"CI": ""})
    list(attempt.events())
    assert attempt.completion().outcome is Outcome.SUCCEEDED
    assert watchman.calls == []

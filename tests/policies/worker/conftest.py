"""A gateway played by a transport, child modules written on the spot, and a claimed attempt between the two."""

from __future__ import annotations

import os
import re
import textwrap
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from policies.contract.jobs import BaseModelSpec, JobSpec
from policies.contract.suite import Coherence, EvalSuite
from policies.contract.tasks import CLAIMS_PATH
from policies.contract.worker_api import (
    Claim,
    Completion,
    EventBatch,
    HeartbeatAnswer,
    HeartbeatRequest,
    Order,
    WorkerEvent,
)
from policies.worker.client import GatewayClient
from policies.worker.settings import WorkerSettings
from policies.worker.supervisor import Attempt

REPOSITORY = Path(__file__).parents[3]
DIGEST = "sha256:" + "0" * 64
TOKEN = "worker-token-" + "w" * 30

CHILD_PROLOGUE = """
import json, os, signal, subprocess, sys, time
from pathlib import Path

folder = Path(sys.argv[1])

def say(message, **fields):
    print(json.dumps({"type": "message", "message": message, **fields}), flush=True)

def answer(outcome, **fields):
    (folder / "completion.json").write_text(json.dumps({"outcome": outcome, **fields}))
"""


@dataclass
class PlayedGateway:
    """Answers the internal API as scripted, and keeps what it was told."""

    order: Callable[[PlayedGateway], Order] = lambda _: Order.CONTINUE
    respond: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
    """Called first: an answer, an exception, or None for the regular answer."""
    claim: Claim | None = None
    calls: list[str] = field(default_factory=list)
    heartbeats: list[HeartbeatRequest] = field(default_factory=list)
    events: list[WorkerEvent] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    credentials: set[str] = field(default_factory=set)

    @property
    def messages(self) -> list[str]:
        return [event.message for event in self.events]

    def client(self) -> GatewayClient:
        return GatewayClient("http://gateway", TOKEN, httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request.url.path.rpartition("/")[2])
        self.credentials.add(request.headers["authorization"])
        scripted = self.respond(request)
        return scripted if scripted is not None else self._regular(request)

    def _regular(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == CLAIMS_PATH:
            return httpx.Response(200, text=self.claim.model_dump_json()) if self.claim else httpx.Response(204)
        match self.calls[-1]:
            case "heartbeat":
                self.heartbeats.append(HeartbeatRequest.model_validate_json(request.content))
                return httpx.Response(200, text=HeartbeatAnswer(order=self.order(self)).model_dump_json())
            case "events":
                self.events += EventBatch.model_validate_json(request.content).events
            case "completion":
                self.completions.append(Completion.model_validate_json(request.content))
        return httpx.Response(204)


@pytest.fixture
def gateway() -> PlayedGateway:
    return PlayedGateway()


@pytest.fixture
def claim() -> Claim:
    spec = JobSpec(
        job_id="ftjob-1",
        base_model=BaseModelSpec(name="tiny", uri="/nowhere"),
        training_file=DIGEST,
        seed=1,
        suite=EvalSuite(probes=(Coherence(),)),
        policy=DIGEST,
    )
    return Claim(kind="train", attempt_token="a1", attempt=1, spec=spec, heartbeat_seconds=0.05, lease_seconds=30)


@pytest.fixture
def settings(tmp_path: Path) -> WorkerSettings:
    return WorkerSettings(
        worker_token=TOKEN,
        store_url=f"file://{tmp_path}/store",
        cache_dir=tmp_path / "cache",
        work_dir=tmp_path / "work",
        threads=1,
        stop_grace_seconds=0.3,
        yield_grace_seconds=20,
    )


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes the source of a child process and returns the name of its module."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{REPOSITORY}")
    # sources of one length that are written within a second would be taken for each other
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def write(source: str) -> str:
        (tmp_path / "scripted_child.py").write_text(CHILD_PROLOGUE + textwrap.dedent(source))
        return "scripted_child"

    return write


@pytest.fixture
def attempt(claim: Claim, settings: WorkerSettings, gateway: PlayedGateway) -> Iterator[Attempt]:
    with gateway.client() as client:
        yield Attempt(claim, settings, client)


def have_ended(pids: Collection[int], *, within_seconds: float = 30) -> bool:
    """Whether all processes are gone; a killed one may take a moment to be taken down on a busy machine."""
    deadline = time.monotonic() + within_seconds
    while any(is_running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return not re.search(r"\) Z ", stat)

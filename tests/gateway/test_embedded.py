"""The embedded stack: up to health on a machine with only Python packages, and down without remainder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI

from gateway.embedded import EmbeddedStack, redis_server
from gateway.parts import Part, StackError

PARTS = ["redis", "gateway", "gateway-worker", "trainer", "evaluator"]

HOST = """
import sys, time
from pathlib import Path
from gateway.embedded import EmbeddedStack

with EmbeddedStack(Path(sys.argv[1])) as stack:
    print(stack.base_url, flush=True)
    time.sleep(600)
"""


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    with EmbeddedStack(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


def test_all_parts_run_and_the_gateway_is_ready(stack: EmbeddedStack) -> None:
    stack.require_running()
    assert list(stack.parts) == PARTS
    assert httpx.get(stack.base_url.removesuffix("/v1") + "/readyz", trust_env=False).status_code == 200


def test_a_fresh_key_opens_the_api(stack: EmbeddedStack) -> None:
    with OpenAI(base_url=stack.base_url, api_key=stack.create_key("acme", "baseline")) as client:
        assert client.fine_tuning.jobs.list().data == []


def test_redis_asks_for_a_password(stack: EmbeddedStack) -> None:
    port = stack.environment["TUNEGATE_BROKER_URL"].rpartition(":")[2].removesuffix("/0")
    with httpx.Client(trust_env=False) as http, pytest.raises(httpx.RemoteProtocolError):
        http.get(f"http://127.0.0.1:{port}")  # Redis ends a connection that speaks HTTP


def test_a_part_can_be_killed_and_started_again(stack: EmbeddedStack) -> None:
    stack.parts["evaluator"].end(by=0)
    with pytest.raises(StackError, match="evaluator ended"):
        stack.require_running()
    stack.start_part("evaluator")
    stack.require_running()


def test_leaving_it_leaves_no_process(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path) as stack:
        processes = [process for part in stack.parts.values() for process in family(part.pid)]
        reapers = psutil.Process().children()
    assert len(processes) >= len(PARTS)
    assert [process for process in (*processes, *reapers) if process.is_running()] == []


def test_a_stack_that_cannot_start_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_DEFAULT_POLICY", "no-such-policy")
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    stack = EmbeddedStack(tmp_path)
    with pytest.raises(StackError, match="no release policy named 'no-such-policy'"), stack:
        pass
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_the_parts_end_with_the_process_that_started_them(tmp_path: Path, end: signal.Signals) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert host.stdout is not None
    with host, host.stdout as told:
        assert told.readline().startswith("http://127.0.0.1:")
        processes = family(host.pid)
        os.kill(host.pid, end)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert len(processes) >= len(PARTS)
    assert alive == []


def test_the_end_of_a_parts_log_is_told(tmp_path: Path) -> None:
    part = Part("loud", [sys.executable, "-c", "raise SystemExit('no luck')"], environment={}, log=tmp_path / "log")
    psutil.wait_procs([psutil.Process(part.pid)], timeout=30)
    with pytest.raises(StackError, match="loud ended with exit code 1; its log ends:\nno luck"):
        part.require_running()


def test_redis_comes_from_the_path_or_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(redis_server()).is_file()
    own = tmp_path / "redis-server"
    own.touch(mode=0o755)
    assert redis_server() == str(own)

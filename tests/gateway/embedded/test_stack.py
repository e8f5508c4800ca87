"""The embedded stack: up to health on a machine with only Python packages, and down without remainder."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from openai import OpenAI

from gateway.embedded.processes import Part, StackError
from gateway.embedded.stack import EmbeddedStack, free_port, redis_server

PARTS = ["redis", "gateway", "gateway-worker", "validator", "trainer", "evaluator"]


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


def test_the_stack_takes_the_number_format_of_models_from_the_caller_and_no_other_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
    monkeypatch.setenv("TUNEGATE_MAX_ATTEMPTS", "7")
    environment = EmbeddedStack(tmp_path).environment
    assert environment["TUNEGATE_DTYPE"] == "float32"
    assert "TUNEGATE_MAX_ATTEMPTS" not in environment


def test_redis_asks_for_a_password(stack: EmbeddedStack) -> None:
    port = int(stack.environment["TUNEGATE_BROKER_URL"].rpartition(":")[2].removesuffix("/0"))
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"KEYS *\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def test_a_part_can_be_killed_and_started_again(stack: EmbeddedStack) -> None:
    stack.parts["evaluator"].end(by=0)
    with pytest.raises(StackError, match="evaluator ended"):
        stack.require_running()
    stack.start_part("evaluator")
    stack.require_running()


BESIDE = """\
import os, sys, time
print(sorted(name for name in os.environ if name.startswith("TUNEGATE_")), os.environ["OMP_NUM_THREADS"], flush=True)
time.sleep(float(sys.argv[1]))
"""


def test_what_runs_beside_may_end_by_itself_and_gets_no_secret_of_the_stack(stack: EmbeddedStack) -> None:
    part = stack.run_beside("brief", [sys.executable, "-c", BESIDE, "0"])
    while part.is_running:
        time.sleep(0.01)
    stack.require_running()
    assert part.log.read_text() == f"[] {os.cpu_count()}\n"


def test_what_runs_beside_ends_with_the_stack(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, threads=1) as stack:
        part = stack.run_beside("endless", [sys.executable, "-c", BESIDE, "3600"])
        assert part.is_running
    assert not part.is_running


def test_a_stack_that_cannot_start_says_why_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("kind: ReleasePolice\n")
    before = {process.pid for process in psutil.Process().children()}
    stack = EmbeddedStack(tmp_path / "data", policy_dir=tmp_path)
    with pytest.raises(StackError, match=r"policy.yaml:1: kind: unknown name 'ReleasePolice'"), stack:
        pass
    assert {process.pid for process in psutil.Process().children()} == before


@pytest.mark.parametrize(("end", "exit_code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)])
def test_up_prints_a_key_and_all_parts_end_with_it(tmp_path: Path, end: signal.Signals, exit_code: int) -> None:
    """SIGINT is ignored at the start, as it is in the background jobs of a shell."""
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    source = f"{ignore}; from gateway.cli.up import app; app()"
    command = [sys.executable, "-c", source, "--data", str(tmp_path), "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
        assert up.stdout is not None
        told = list(itertools.takewhile(lambda line: "Ctrl-C stops it" not in line, up.stdout))
        processes = family(up.pid)
        os.kill(up.pid, end)
        up.stdout.read()
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert any(line.startswith("API key   sk-tg-") for line in told)
    assert len(processes) > len(PARTS)
    assert (up.returncode, alive) == (exit_code, [])


def test_the_end_of_a_parts_log_is_told(tmp_path: Path) -> None:
    part = Part("loud", [sys.executable, "-c", "raise SystemExit('no luck')"], environment={}, log=tmp_path / "log")
    while part.is_running:
        time.sleep(0.01)
    with pytest.raises(StackError, match="loud ended with exit code 1; its log ends:\nno luck"):
        part.require_running()


def test_redis_comes_from_the_path_or_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(redis_server()).is_file()
    own = tmp_path / "redis-server"
    own.touch(mode=0o755)
    assert redis_server() == str(own)

"""The embedded stack: up to health on a machine with only Python packages, and down without remainder."""

from __future__ import annotations

import itertools
import os
import re
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
from gateway.embedded.stack import PASSED_ON, EmbeddedStack, free_port, redis_server

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
    assert httpx.get(stack.operations_url + "/readyz", trust_env=False).status_code == 200


def test_a_fresh_key_opens_the_api(stack: EmbeddedStack) -> None:
    with OpenAI(base_url=stack.base_url, api_key=stack.create_key("acme", "baseline")) as client:
        assert client.fine_tuning.jobs.list().data == []


def test_the_stack_takes_the_number_format_of_models_from_the_caller_and_no_other_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_DTYPE", "float32")
    monkeypatch.setenv("TUNEGATE_MAX_ATTEMPTS", "7")
    environment = EmbeddedStack(tmp_path).environment_of("trainer")
    assert environment["TUNEGATE_DTYPE"] == "float32"
    assert "TUNEGATE_MAX_ATTEMPTS" not in environment


def test_redis_asks_for_a_password(stack: EmbeddedStack) -> None:
    port = int(stack.environment_of("trainer")["TUNEGATE_BROKER_URL"].rpartition(":")[2].removesuffix("/0"))
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
    passed_on = sorted({"TUNEGATE_CACHE_DIR", *(name for name in PASSED_ON if name in os.environ)})
    assert part.log.read_text() == f"{passed_on} {os.cpu_count()}\n"


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


CREDENTIALS = {
    "redis": (),
    "gateway": ("DATABASE_URL", "TRAINER_TOKEN", "EVALUATOR_TOKEN", "CONFIRMER_TOKEN"),
    "gateway-worker": ("DATABASE_URL", "BROKER_URL"),
    "validator": ("DATABASE_URL", "BROKER_URL"),
    "trainer": ("WORKER_TOKEN", "BROKER_URL"),
    "evaluator": ("WORKER_TOKEN", "BROKER_URL"),
    "confirmer": ("WORKER_TOKEN", "BROKER_URL"),
}


def test_each_part_is_given_its_own_credentials_and_no_other_parts(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path)
    environments = {part: stack.environment_of(part) for part in CREDENTIALS}
    secret = re.compile(r"TUNEGATE_(.*(?:TOKEN|DATABASE_URL|BROKER_URL))")
    for part, names in CREDENTIALS.items():
        assert {match[1] for name in environments[part] if (match := secret.fullmatch(name))} == set(names), part
    workers = {name: environments[name] for name in ("trainer", "evaluator", "confirmer")}
    for name, worker in workers.items():
        assert worker["TUNEGATE_WORKER_TOKEN"] == environments["gateway"][f"TUNEGATE_{name.upper()}_TOKEN"]
    for variable in ("TUNEGATE_WORKER_TOKEN", "TUNEGATE_CACHE_DIR"):
        assert len({worker[variable] for worker in workers.values()}) == 3
    assert len({environment.get("TUNEGATE_BROKER_URL") for environment in environments.values()}) == 6


def test_no_credential_lies_in_a_file_or_is_seen_from_outside(stack: EmbeddedStack) -> None:
    """The values themselves, of the running stack: not below its folder, and gone from its workers' environments."""
    variables = [(part, *item) for part in PARTS for item in stack.environment_of(part).items()]
    secrets = {value.encode() for _, name, value in variables if name.endswith("TOKEN")}
    secrets |= {value.partition("@")[0].rpartition(":")[2].encode() for _, name, value in variables if "BROKER" in name}
    assert len(secrets) == 7
    files = [path for path in stack.folder.rglob("*") if path.is_file()]
    assert stack.folder / "redis.conf" in files
    assert [path for path in files if any(secret in path.read_bytes() for secret in secrets)] == []
    command_lines = [Path(f"/proc/{p.pid}/cmdline") for part in stack.parts.values() for p in family(part.pid)]
    assert [path for path in command_lines if any(secret in path.read_bytes() for secret in secrets)] == []

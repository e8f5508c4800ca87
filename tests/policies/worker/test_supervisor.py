"""One attempt with real child processes against a scripted gateway."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from policies.contract.jobs import BaseModelRef, JobSpec
from policies.contract.suite import Coherence, EvalSuite
from policies.contract.worker_api import Claim, ClaimRequest, Completion, Outcome
from policies.errors import LeaseLostError, WorkerError
from policies.worker.client import GatewayClient, GatewayUnreachableError
from policies.worker.settings import WorkerSettings
from policies.worker.supervisor import Attempt, announce_shutdown

DIGEST = "sha256:" + "0" * 64
CLAIM = Claim(
    kind="train",
    attempt_token="attempt_1",
    attempt=1,
    spec=JobSpec(
        job_id="ftjob-1",
        base_model=BaseModelRef(name="m", uri="m"),
        training_file=DIGEST,
        seed=0,
        suite=EvalSuite(probes=(Coherence(),)),
        policy=DIGEST,
    ),
    heartbeat_seconds=0.05,
    lease_seconds=1.0,
)
ANSWER = Completion(outcome=Outcome.SUCCEEDED, record=DIGEST).model_dump_json()
YIELDED = Completion(outcome=Outcome.YIELDED).model_dump_json()
HELLO = '{"type": "metrics", "message": "hello", "data": {"step": 1}, ' + (
    '"progress": {"step": 1, "total_steps": 2, "stage": "training"}}'
)


class ScriptedGateway(httpx.BaseTransport):
    """Answers like the internal API; `orders` are given to heartbeats in turn, the last one for ever."""

    def __init__(self, *orders: str) -> None:
        self.orders = list(orders) or ["continue"]
        self.events: list[str] = []
        self.completions: list[Completion] = []
        self.heartbeats: list[dict[str, object]] = []
        self.calls: list[str] = []
        self.fail: Callable[[str], bool] = lambda path: False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content)
        assert request.headers["Authorization"] == "Bearer token"
        self.calls.append(path.rsplit("/", 1)[1])
        if self.fail(path):
            raise httpx.ConnectError("no route", request=request)
        if path.endswith("/heartbeat"):
            self.heartbeats.append(body)
            order = self.orders.pop(0) if len(self.orders) > 1 else self.orders[0]
            return httpx.Response(200, json={"order": order})
        if path.endswith("/events"):
            self.events += [event["message"] for event in body["events"]]
        else:
            self.completions.append(Completion.model_validate(body))
        return httpx.Response(204)


class Scene:
    """A worker whose child is a little Python module."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gateway: ScriptedGateway, code: str) -> None:
        (tmp_path / "little_child.py").write_text(
            "import json, os, pathlib, signal, sys, time\nfolder = pathlib.Path(sys.argv[1])\n" + code
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        self.work = tmp_path / "work"
        self.settings = WorkerSettings(
            worker_token=SecretStr("t" * 32), work_dir=self.work, threads=1, stop_grace_seconds=0.5
        )
        self.gateway = gateway
        self.attempt = Attempt(CLAIM, self.settings, GatewayClient("http://gateway", "token", gateway))

    def run(self) -> list[Completion]:
        self.attempt.run("little_child")
        assert list(self.work.glob("tunegate-attempt-*")) == []
        return self.gateway.completions


def answer(text: str) -> str:
    return f"(folder / 'completion.json').write_text({text!r})\n"


def test_the_childs_answer_is_handed_in_after_its_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = ScriptedGateway()
    code = f"print({HELLO!r}, flush=True)\ntime.sleep(0.5)\nprint({HELLO!r}, flush=True)\n" + answer(ANSWER)
    (completion,) = Scene(tmp_path, monkeypatch, gateway, code).run()
    assert completion.outcome is Outcome.SUCCEEDED
    assert gateway.events == ["hello", "hello"]
    assert gateway.calls[-1] == "completion"
    assert {"step": 1, "total_steps": 2, "stage": "training", "eta_seconds": None, "figures": {}} in [
        heartbeat["progress"] for heartbeat in gateway.heartbeats
    ]


def test_a_killed_child_is_reported_as_crashed_with_signal_and_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "print('out of memory', file=sys.stderr, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    (completion,) = Scene(tmp_path, monkeypatch, ScriptedGateway(), code).run()
    assert completion.outcome is Outcome.CRASHED
    assert "SIGKILL" in (completion.error_message or "")
    assert "out of memory" in (completion.error_message or "")


def test_an_unreadable_answer_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (completion,) = Scene(tmp_path, monkeypatch, ScriptedGateway(), answer('{"outcome": "released"}')).run()
    assert completion.outcome is Outcome.CRASHED


@pytest.mark.parametrize("order", ["pause", "cancel"])
def test_an_order_stops_the_child_and_its_answer_counts(
    order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "def stop(*_):\n    " + answer(YIELDED) + "    sys.exit(0)\nsignal.signal(signal.SIGTERM, stop)\n"
        f"print({HELLO!r}, flush=True)\ntime.sleep(60)\n"
    )
    gateway = ScriptedGateway("continue")
    scene = Scene(tmp_path, monkeypatch, gateway, code)
    _after(lambda: "hello" in gateway.events, lambda: gateway.orders.__setitem__(0, order))
    (completion,) = scene.run()
    assert completion.outcome is Outcome.YIELDED


def test_a_cancelled_child_that_does_not_listen_is_killed_with_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(grandchild.pid))\n"
        f"print({HELLO!r}, flush=True)\ntime.sleep(60)\n"
    )
    gateway = ScriptedGateway("continue")
    scene = Scene(tmp_path, monkeypatch, gateway, code)
    _after(lambda: "hello" in gateway.events, lambda: gateway.orders.__setitem__(0, "cancel"))
    (completion,) = scene.run()
    assert completion.outcome is Outcome.CRASHED
    _require_gone(int((tmp_path / "pid").read_text()))


def test_a_lost_job_is_not_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, monkeypatch, ScriptedGateway("continue", "lost"), "time.sleep(60)\n" + answer(ANSWER))
    assert scene.run() == []


def test_a_gateway_silent_for_longer_than_the_lease_counts_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = ScriptedGateway()
    gateway.fail = lambda path: True
    assert Scene(tmp_path, monkeypatch, gateway, "time.sleep(60)\n").run() == []


def test_a_short_absence_of_the_gateway_loses_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = ScriptedGateway()
    remaining = iter([True] * 5)
    gateway.fail = lambda path: next(remaining, False)
    code = f"print({HELLO!r}, flush=True)\ntime.sleep(0.6)\n" + answer(ANSWER)
    (completion,) = Scene(tmp_path, monkeypatch, gateway, code).run()
    assert completion.outcome is Outcome.SUCCEEDED
    assert gateway.events == ["hello"]


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = ScriptedGateway()
    code = f"print('loading…')\nprint({HELLO!r}, flush=True)\n" + answer(ANSWER)
    Scene(tmp_path, monkeypatch, gateway, code).run()
    assert gateway.events == ["hello"]


def test_a_worker_that_is_told_to_end_gives_the_job_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "def stop(*_):\n    " + answer(YIELDED) + "    sys.exit(0)\nsignal.signal(signal.SIGTERM, stop)\n"
        f"print({HELLO!r}, flush=True)\ntime.sleep(60)\n"
    )
    gateway = ScriptedGateway()
    scene = Scene(tmp_path, monkeypatch, gateway, code)
    _after(lambda: "hello" in gateway.events, lambda: announce_shutdown(scene.work, worker_pid=os.getppid()))
    (completion,) = scene.run()
    assert completion.outcome is Outcome.YIELDED


def test_a_claim_of_nothing_is_none() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(204))
    request = ClaimRequest(kind="train", job_id="ftjob-1", worker="w")
    assert GatewayClient("http://gateway", "token", transport).claim(request, patience_seconds=1) is None


@pytest.mark.parametrize(
    ("status", "error"), [(410, LeaseLostError), (503, GatewayUnreachableError), (401, WorkerError)]
)
def test_answers_of_the_gateway_become_errors(status: int, error: type[Exception]) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(status))
    with pytest.raises(error):
        GatewayClient("http://gateway", "token", transport).heartbeat("attempt_1", None)


def _after(condition: Callable[[], bool], action: Callable[[], object]) -> None:
    def wait() -> None:
        while not condition():
            time.sleep(0.02)
        action()

    threading.Thread(target=wait, daemon=True).start()


def _require_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} is still there")

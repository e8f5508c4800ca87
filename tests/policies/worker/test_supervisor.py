"""One attempt against a played gateway, with real child processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import structlog

from policies.contract.worker_api import Assignment, Claim, Order, Outcome
from policies.worker.settings import WorkerSettings
from policies.worker.supervisor import Attempt, announce_shutdown
from tests.policies.worker.conftest import DIGEST, PlayedGateway, have_ended

Child = Callable[[str], str]

WAIT_FOR_SIGTERM = """
def stop(*_):
    answer("yielded")
    sys.exit(0)

signal.signal(signal.SIGTERM, stop)
say("ready")
time.sleep(60)
"""
DEAF = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
say("ready", data={"child": os.getpid(), "grandchild": grandchild.pid})
time.sleep(60)
"""


def once_ready(order: Order) -> Callable[[PlayedGateway], Order]:
    return lambda gateway: order if "ready" in gateway.messages else Order.CONTINUE


def pids_told(gateway: PlayedGateway) -> list[int]:
    (ready,) = [event for event in gateway.events if event.message == "ready"]
    return [int(str(pid)) for pid in ready.data.values()]


def test_an_answer_is_handed_in_after_all_events(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    attempt.run(child(f"say('one'); say('two'); answer('succeeded', record='{DIGEST}')"))
    assert gateway.messages == ["one", "two"]
    (completion,) = gateway.completions
    assert (completion.outcome, completion.record) == (Outcome.SUCCEEDED, DIGEST)
    assert gateway.calls[-1] == "completion"


def test_heartbeats_carry_the_latest_progress(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    source = """
    for step in (1, 2):
        say("on", type="progress", progress={"step": step, "total_steps": 2, "stage": "training"})
    time.sleep(0.5)
    answer("succeeded")
    """
    attempt.run(child(source))
    last = gateway.heartbeats[-1].progress
    assert last is not None
    assert last.step == 2
    assert gateway.events == []


def test_the_child_reads_its_assignment_and_holds_no_credential(
    attempt: Attempt, gateway: PlayedGateway, child: Child, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_WORKER_TOKEN", "t" * 40)
    source = """
    say((folder / "assignment.json").read_text())
    say(os.environ.get("TUNEGATE_WORKER_TOKEN", "no token"))
    answer("succeeded")
    """
    attempt.run(child(source))
    assignment = Assignment.model_validate_json(gateway.messages[0])
    assert (assignment.work, assignment.worker_pid) == (claim.work(), os.getpid())
    assert gateway.messages[1] == "no token"


def test_the_child_of_a_local_base_is_kept_from_the_hub(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    attempt.run(child("say(os.environ['HF_HUB_OFFLINE'] + os.environ['DO_NOT_TRACK']); answer('succeeded')"))
    assert gateway.messages == ["11"]


def test_nothing_is_left_in_the_work_folder(attempt: Attempt, child: Child, settings: WorkerSettings) -> None:
    attempt.run(child("(folder / 'big').write_text('x'); answer('succeeded')"))
    assert list(settings.work_dir.iterdir()) == []


def test_a_child_that_dies_by_a_signal_crashed(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    attempt.run(child("print('out of memory', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)"))
    (completion,) = gateway.completions
    assert completion.outcome is Outcome.CRASHED
    assert completion.error_message == "the process ended with signal SIGKILL"


def test_a_traceback_goes_to_the_log_and_not_to_the_gateway(
    attempt: Attempt, gateway: PlayedGateway, child: Child
) -> None:
    with structlog.testing.capture_logs() as log:
        attempt.run(child("raise ValueError(f'{folder}/secret')"))
    assert gateway.completions[0].error_message == "the process ended with exit code 1"
    (crashed,) = [entry for entry in log if entry["event"] == "crashed"]
    assert "Traceback" in crashed["last_words"]
    assert "secret" in crashed["last_words"]


def test_a_child_that_ends_without_an_answer_crashed(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    attempt.run(child("sys.exit(3)"))
    assert gateway.completions[0].error_message == "the process ended with exit code 3"


def test_an_answer_that_cannot_be_read_is_a_crash(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    attempt.run(child("answer('fine')"))
    assert gateway.completions[0].outcome is Outcome.CRASHED
    assert "its answer can't be read" in str(gateway.completions[0].error_message)


def test_an_answer_counts_whatever_the_interpreter_does_afterwards(
    attempt: Attempt, gateway: PlayedGateway, child: Child
) -> None:
    attempt.run(child("answer('succeeded'); os.abort()"))
    assert gateway.completions[0].outcome is Outcome.SUCCEEDED


def test_lines_that_are_no_events_stop_nothing(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    source = """
    say("before")
    print("a library greets")
    print('{"type": "message"}')
    print('{"type": "metrics", "message": "m", "data": {"loss": NaN}}')
    os.write(1, b"\\xff\\xfe\\n")
    say("after")
    answer("succeeded")
    """
    attempt.run(child(source))
    assert gateway.messages == ["before", "after"]


@pytest.mark.parametrize("order", [Order.PAUSE, Order.CANCEL])
def test_a_child_that_is_asked_to_stop_may_answer(
    attempt: Attempt, gateway: PlayedGateway, child: Child, order: Order
) -> None:
    gateway.order = once_ready(order)
    attempt.run(child(WAIT_FOR_SIGTERM))
    assert [completion.outcome for completion in gateway.completions] == [Outcome.YIELDED]


def test_a_deaf_child_is_killed_with_its_group(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    gateway.order = once_ready(Order.CANCEL)
    attempt.run(child(DEAF))
    assert have_ended(pids_told(gateway))
    assert [completion.outcome for completion in gateway.completions] == [Outcome.YIELDED]


def test_a_cancel_shortens_the_grace_of_a_pause(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    """The pause alone would give the deaf child 20 seconds."""
    orders = iter([Order.PAUSE])
    gateway.order = lambda told: next(orders, Order.CANCEL) if "ready" in told.messages else Order.CONTINUE
    attempt.run(child(DEAF))
    assert have_ended(pids_told(gateway))


def test_a_lost_job_is_dropped_without_an_answer(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    gateway.order = once_ready(Order.LOST)
    attempt.run(child(DEAF))
    assert have_ended(pids_told(gateway))
    assert gateway.completions == []


def test_a_gateway_that_stays_away_longer_than_the_lease_ends_the_child(
    claim: Claim, settings: WorkerSettings, gateway: PlayedGateway, child: Child
) -> None:
    def away_once_ready(request: httpx.Request) -> None:
        if gateway.events:
            raise httpx.ConnectError("refused")

    gateway.respond = away_once_ready
    with gateway.client() as client:
        Attempt(claim.model_copy(update={"lease_seconds": 0.4}), settings, client).run(child(DEAF))
    assert have_ended(pids_told(gateway))
    assert gateway.completions == []


def test_events_of_a_short_absence_arrive_in_order(attempt: Attempt, gateway: PlayedGateway, child: Child) -> None:
    refusals = iter(range(3))
    gateway.respond = lambda request: (
        httpx.Response(503) if request.url.path.endswith("events") and next(refusals, None) is not None else None
    )
    attempt.run(child("[say(str(n)) for n in range(1200)]; time.sleep(0.6); answer('succeeded')"))
    assert gateway.messages == [str(n) for n in range(1200)]


def test_a_worker_that_shuts_down_gives_the_job_back(
    attempt: Attempt, gateway: PlayedGateway, child: Child, settings: WorkerSettings
) -> None:
    def shut_down(told: PlayedGateway) -> Order:
        if "ready" in told.messages:
            announce_shutdown(settings.work_dir, worker_pid=os.getppid())
        return Order.CONTINUE

    gateway.order = shut_down
    attempt.run(child(WAIT_FOR_SIGTERM))
    assert [completion.outcome for completion in gateway.completions] == [Outcome.YIELDED]


def test_a_child_ended_by_our_signal_before_it_could_answer_uses_up_no_attempt(
    attempt: Attempt, gateway: PlayedGateway, child: Child
) -> None:
    gateway.order = once_ready(Order.PAUSE)
    attempt.run(child("say('ready'); time.sleep(60)"))
    (completion,) = gateway.completions
    assert completion.outcome is Outcome.YIELDED
    assert "SIGTERM" in str(completion.error_message)


def test_a_grandchild_that_holds_the_output_open_does_not_hold_the_answer(
    attempt: Attempt, gateway: PlayedGateway, child: Child
) -> None:
    source = """
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    say("ready", data={"grandchild": grandchild.pid})
    answer("succeeded")
    """
    attempt.run(child(source))
    assert gateway.completions[0].outcome is Outcome.SUCCEEDED
    assert have_ended(pids_told(gateway))


def test_the_child_can_store_its_record(attempt: Attempt, gateway: PlayedGateway, child: Child, tmp_path: Path) -> None:
    source = """
    from policies.contract.store import ArtifactStore
    store = ArtifactStore(json.loads((folder / "assignment.json").read_text())["store_url"])
    answer("succeeded", record=store.put_bytes(b"record"))
    """
    attempt.run(child(source))
    record = str(gateway.completions[0].record).removeprefix("sha256:")
    assert (tmp_path / "store" / "sha256" / record[:2] / record).read_bytes() == b"record"

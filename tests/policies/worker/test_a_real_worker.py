"""A trainer's Celery worker at a real broker that lets everybody do everything: what it shows, and what it heeds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from redis import Redis
from redis.exceptions import ConnectionError

from gateway.embedded.stack import free_port, redis_server
from policies.broker import celery_settings
from policies.contract.tasks import TRAIN_ADAPTER, TRAIN_QUEUE
from tests.policies.worker.conftest import REPOSITORY


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    command = [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:

        def answers() -> bool:
            try:
                return bool(Redis(port=port).ping())
            except ConnectionError:
                return False

        wait_for(answers, server)
        yield port
        server.kill()


@pytest.fixture
def worker(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
        "TUNEGATE_WORKER_TOKEN": "t" * 40,
        "TUNEGATE_BROKER_URL": f"redis://127.0.0.1:{port}/0",
        "TUNEGATE_GATEWAY_URL": f"http://127.0.0.1:{free_port()}",
        "TUNEGATE_LIVENESS_FILE": str(tmp_path / "alive"),
        "TUNEGATE_WORK_DIR": str(tmp_path / "work"),
    }
    abandoned = tmp_path / "work" / "tunegate-attempt-abandoned"
    abandoned.mkdir(parents=True)
    (abandoned / ".held").write_text("held")
    command = [sys.executable, "-m", "celery", "-A", "trainer.tasks", "worker", "-Q", TRAIN_QUEUE, "-c", "1"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "CRITICAL"]
    with subprocess.Popen([*command, *quiet], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def test_a_worker_that_consumes_shows_that_it_lives(worker: subprocess.Popen[bytes], tmp_path: Path) -> None:
    wait_for((tmp_path / "alive").exists, worker)


def test_a_worker_that_starts_and_ends_leaves_nothing_in_its_work_folder(
    worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Neither its own mark nor what a killed one left."""
    wait_for((tmp_path / "alive").exists, worker)
    worker.terminate()
    worker.wait()
    assert [*(tmp_path / "work").iterdir()] == []


def test_nobody_ends_a_worker_or_learns_of_it_by_remote_control(
    worker: subprocess.Popen[bytes], port: int, tmp_path: Path
) -> None:
    """What comes after the order is still taken, so the worker did not heed it."""
    wait_for((tmp_path / "alive").exists, worker)
    attacker, client = Celery("attacker", set_as_current=False), Redis(port=port)
    attacker.conf.update(celery_settings(f"redis://127.0.0.1:{port}/0", TRAIN_QUEUE))
    assert client.pubsub_numpat() == 0
    attacker.control.broadcast("shutdown")
    attacker.send_task(TRAIN_ADAPTER, args=["ftjob-none", 1], queue=TRAIN_QUEUE)
    wait_for(lambda: client.llen(TRAIN_QUEUE) == 0, worker)
    assert attacker.control.ping(timeout=0.5) == []
    assert worker.poll() is None


def test_a_message_that_is_no_json_is_not_read(worker: subprocess.Popen[bytes], port: int, tmp_path: Path) -> None:
    """A pickle in the queue is taken out and thrown away; the worker goes on with the next message."""
    wait_for((tmp_path / "alive").exists, worker)
    attacker, client = Celery("attacker", set_as_current=False), Redis(port=port)
    attacker.conf.update(celery_settings(f"redis://127.0.0.1:{port}/0", TRAIN_QUEUE))
    mark = tmp_path / "ran"
    attacker.send_task(TRAIN_ADAPTER, args=[Touch(mark), 1], queue=TRAIN_QUEUE, serializer="pickle")
    attacker.send_task(TRAIN_ADAPTER, args=["ftjob-none", 1], queue=TRAIN_QUEUE)
    wait_for(lambda: client.llen(TRAIN_QUEUE) == 0, worker)
    assert not mark.exists()
    assert worker.poll() is None


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (self._path, "w"))

"""Processes are killed in the middle of a job; the job still ends, once, from its checkpoint."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import psutil
from openai import OpenAI

from gateway.demo.customer import fetch_report
from gateway.embedded.stack import EmbeddedStack
from tests.integration.jobs import STEPS_PER_EPOCH, has_ended, messages, step, submit, wait_until


def training_children(stack: EmbeddedStack) -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process(stack.parts["trainer"].pid).children(recursive=True)
        if "trainer.run" in child.cmdline()
    ]


def steps_trained(client: OpenAI, job_id: str) -> list[int]:
    """Steps of all metrics events, in the order in which they were reported."""
    events = list(client.fine_tuning.jobs.list_events(job_id))[::-1]
    return [
        int(e.data["step"])
        for e in events
        if e.type == "metrics" and isinstance(e.data, dict) and "train_loss" in e.data
    ]


def require_ended_once_from_a_checkpoint(client: OpenAI, job_id: str) -> None:
    job = wait_until(client, job_id, has_ended)
    assert job.status == "succeeded", job.error
    told = messages(client, job_id)
    assert sum("successfully completed" in message for message in told) == 1
    assert sum("Fine-tuning job started" in message for message in told) == 2
    steps = steps_trained(client, job_id)
    restarts = [after for before, after in itertools.pairwise(steps) if after <= before]
    assert all(step > 1 for step in restarts), "the second attempt began at the first step"
    assert steps[-1] == 30 * STEPS_PER_EPOCH
    assert fetch_report(client, job_id)["training"]["total_steps"] == 30 * STEPS_PER_EPOCH


def test_a_killed_training_child_is_replaced(
    stack: EmbeddedStack, clients: dict[str, OpenAI], training_file: Path
) -> None:
    client = clients["lenient"]
    job = submit(client, training_file, n_epochs=30)
    wait_until(client, job.id, lambda state: step(state) >= 12)
    (child,) = training_children(stack)
    child.kill()
    require_ended_once_from_a_checkpoint(client, job.id)


def test_a_killed_worker_is_replaced_and_leaves_no_child(
    stack: EmbeddedStack, clients: dict[str, OpenAI], training_file: Path
) -> None:
    client = clients["lenient"]
    job = submit(client, training_file, n_epochs=30)
    wait_until(client, job.id, lambda state: step(state) >= 12)
    (child,) = training_children(stack)
    os.killpg(stack.parts["trainer"].pid, signal.SIGKILL)
    stack.parts["trainer"].end(by=time.monotonic())
    stack.start_part("trainer")
    psutil.wait_procs([child], timeout=30)
    assert not child.is_running()
    require_ended_once_from_a_checkpoint(client, job.id)

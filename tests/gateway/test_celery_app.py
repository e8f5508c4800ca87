"""The gateway's Celery application: JSON only, early acknowledgement, no pickled schedule."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from celery.beat import PersistentScheduler, Scheduler
from kombu.utils.imports import symbol_by_name

from gateway.celery_app import app, configuration
from policies.contract.tasks import (
    DISPATCH_OUTBOX,
    RECONCILE_JOBS,
    ROLL_UP_METRICS,
    SWEEP_FILES,
    SWEEP_JOBS,
    SWEEP_UPLOADS,
    VALIDATE_FILES,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_TICK_SECONDS", "0.5")


def test_messages_are_json_and_acknowledged_early() -> None:
    found = configuration()
    assert found["accept_content"] == ["json"]
    assert found["task_serializer"] == "json"
    assert found["task_acks_late"] is False
    assert found["worker_prefetch_multiplier"] == 1
    assert found["broker_connection_retry_on_startup"] is True


def test_outbox_and_reconciler_run_each_tick() -> None:
    schedule = configuration()["beat_schedule"]
    assert isinstance(schedule, dict)
    every = {entry["task"]: entry["schedule"] for entry in schedule.values()}
    assert (every[DISPATCH_OUTBOX], every[RECONCILE_JOBS]) == (0.5, 0.5)
    assert all(every[task] > 20 for task in (ROLL_UP_METRICS, SWEEP_FILES, SWEEP_JOBS, SWEEP_UPLOADS))


def test_schedule_is_not_kept_in_a_file() -> None:
    """Celery's default scheduler keeps it with `shelve`, which is pickle."""
    scheduler = symbol_by_name(configuration()["beat_scheduler"])
    assert issubclass(scheduler, Scheduler)
    assert not issubclass(scheduler, PersistentScheduler)


def test_worker_knows_its_tasks() -> None:
    import_module("gateway.tasks")
    assert {DISPATCH_OUTBOX, RECONCILE_JOBS, VALIDATE_FILES} <= set(app.tasks)


def test_tasks_import_without_settings() -> None:
    """In a process of its own without any `TUNEGATE_` variable: settings are read when the worker starts."""
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run([sys.executable, "-c", "import gateway.tasks"], env=environment, check=True)


def test_worker_does_not_log_which_addresses_it_asks() -> None:
    """In a process of its own, since another application may have seen to it in this one."""
    check = "import logging, gateway.celery_app; assert not logging.getLogger('httpx').isEnabledFor(logging.INFO)"
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    subprocess.run(
        [sys.executable, "-c", f"import logging; logging.basicConfig(level=0); {check}"], env=environment, check=True
    )


def test_nothing_controls_a_worker_from_afar() -> None:
    found = configuration()
    assert (found["worker_enable_remote_control"], found["worker_send_task_events"]) == (False, False)

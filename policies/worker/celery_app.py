"""The Celery application of a training or evaluation worker.

Messages are hints: they are acknowledged before the work, and a lost or doubled one costs nothing, because the job is
claimed from the gateway. Prefork pool, one job at a time, JSON only, no result backend.
"""

from __future__ import annotations

import logging
import os

from celery import Celery
from celery.signals import celeryd_init, worker_ready, worker_shutting_down

from policies.errors import ConfigurationError
from policies.own_memory import refuse_readers
from policies.worker.metrics import serve_metrics
from policies.worker.settings import keep_settings, worker_settings
from policies.worker.supervisor import announce_shutdown, forget_shutdown

VISIBILITY_TIMEOUT_SECONDS = 24 * 3600


def make_worker_app(name: str, queue: str) -> Celery:
    """An application that reads its settings when a worker starts, not when its module is imported."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a heartbeat hides all others
    app = Celery(f"tunegate-{name}", set_as_current=False)
    app.add_defaults(lambda: _configuration(queue))
    return app


def _configuration(queue: str) -> dict[str, object]:
    return {
        "broker_url": worker_settings().broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS, "socket_keepalive": True},
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_default_queue": queue,
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": 1,
    }


@celeryd_init.connect
def _keep_credentials(**_: object) -> None:
    """Before the pool is forked and before any child exists: what tenants uploaded is handled beside this process."""
    try:
        refuse_readers()
        keep_settings()
    except (OSError, ConfigurationError) as error:  # Celery would log it and go on
        raise SystemExit(f"the worker does not start: {error}") from error


@worker_ready.connect
def _start(**_: object) -> None:
    settings = worker_settings()
    forget_shutdown(settings.work_dir, worker_pid=os.getpid())
    if settings.metrics_port is not None:
        serve_metrics(settings.metrics_port, settings.cache_dir)


@worker_shutting_down.connect
def _give_back_the_job(**_: object) -> None:
    """SIGTERM reached the worker: the pool's process checkpoints and gives its job back."""
    announce_shutdown(worker_settings().work_dir, worker_pid=os.getpid())

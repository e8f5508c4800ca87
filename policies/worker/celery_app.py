"""The Celery application of a training or evaluation worker.

Messages are hints: they are acknowledged before the work, and a lost or doubled one costs nothing, because the job is
claimed from the gateway. Prefork pool, one job at a time, JSON only, no result backend.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from celery import Celery
from celery.signals import celeryd_init, worker_ready, worker_shutdown, worker_shutting_down

from policies.broker import celery_settings
from policies.contract.tasks import CONFIRM_QUEUE, EVALUATE_QUEUE, TRAIN_QUEUE
from policies.contract.worker_api import WorkKind
from policies.errors import ConfigurationError
from policies.liveness import show_liveness
from policies.own_memory import refuse_readers
from policies.worker.base_checks import keep_checking
from policies.worker.metrics import serve_metrics
from policies.worker.own_cache import take_cache
from policies.worker.settings import keep_settings, worker_settings
from policies.worker.supervisor import announce_shutdown, forget_shutdown
from policies.worker.work_folder import remove_abandoned

_KINDS: dict[str, WorkKind] = {TRAIN_QUEUE: "train", EVALUATE_QUEUE: "evaluate", CONFIRM_QUEUE: "confirm"}


def make_worker_app(name: str, queue: str) -> Celery:
    """An application that reads its settings when a worker starts, not when its module is imported."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a heartbeat hides all others
    app = Celery(f"tunegate-{name}", set_as_current=False)
    app.add_defaults(lambda: celery_settings(worker_settings().broker_url, queue) | {"worker_concurrency": 1})
    show_liveness(app, lambda: worker_settings().liveness_file)
    return app


@celeryd_init.connect
def _keep_to_itself(instance: Any, **_: object) -> None:  # Any: celery's worker
    """Before the pool is forked and before any child exists: what tenants uploaded is handled beside this process."""
    try:
        refuse_readers()
        keep_settings()
        settings = worker_settings()
        take_cache(settings.cache_dir, _KINDS[instance.app.conf.task_default_queue], user=settings.child_user)
    except (OSError, ConfigurationError) as error:  # Celery would log it and go on
        raise SystemExit(f"the worker does not start: {error}") from error


@worker_ready.connect
def _start(sender: Any, **_: object) -> None:  # Any: celery's consumer
    settings = worker_settings()
    forget_shutdown(settings.work_dir, worker_pid=os.getpid())
    remove_abandoned(settings.work_dir)
    if settings.metrics_port is not None:
        serve_metrics(settings.metrics_port, settings.cache_dir)
    if sender.app.conf.task_default_queue == EVALUATE_QUEUE:
        keep_checking(settings)


@worker_shutting_down.connect
def _give_back_the_job(**_: object) -> None:
    """SIGTERM reached the worker: the pool's process checkpoints and gives its job back."""
    announce_shutdown(worker_settings().work_dir, worker_pid=os.getpid())


@worker_shutdown.connect
def _leave_nothing(**_: object) -> None:
    """The pool has ended, so nobody looks for the mark any more."""
    forget_shutdown(worker_settings().work_dir, worker_pid=os.getpid())

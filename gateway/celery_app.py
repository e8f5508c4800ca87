"""The gateway's own Celery workers, one for control and one for validation.

    celery -A gateway.celery_app worker -Q gateway -B --concurrency 1
    celery -A gateway.celery_app worker -Q validate --concurrency 2

Control is the outbox and the reconciler. It shares no process with the files of tenants, so that none of these holds up
what moves every job.

Messages are hints, so they are acknowledged before the work: the database knows what is left to do and the reconciler
sends it again. Tasks speak JSON only and return nothing.
"""

from __future__ import annotations

from celery import Celery

from gateway.settings import GatewaySettings
from policies.contract.tasks import (
    DISPATCH_OUTBOX,
    GATEWAY_QUEUE,
    RECONCILE_JOBS,
    ROLL_UP_METRICS,
    SWEEP_FILES,
    SWEEP_JOBS,
    VALIDATE_QUEUE,
)
from policies.environment import read_settings

VISIBILITY_TIMEOUT_SECONDS = 24 * 3600
"""Redis gives an unacknowledged message to a second worker after this long; ours are acknowledged at once."""

SLOW_TASKS = {ROLL_UP_METRICS: 150.0, SWEEP_JOBS: 30.0, SWEEP_FILES: 6 * 3600.0}
"""Seconds between rounds of what may take long, and must not hold up the outbox and the reconciler."""


def configuration() -> dict[str, object]:
    """Read from the environment when the application is first used, not when this module is imported."""
    settings = read_settings(GatewaySettings)
    transport = {"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS, "socket_timeout": 30, "socket_keepalive": True}
    return {
        "broker_url": settings.broker_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": transport,
        "visibility_timeout": VISIBILITY_TIMEOUT_SECONDS,
        "accept_content": ["json"],
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_default_queue": GATEWAY_QUEUE,
        "worker_prefetch_multiplier": 1,
        "beat_scheduler": "celery.beat:Scheduler",  # the default one keeps its schedule in a pickle file
        "beat_schedule": {
            **{name: _every(settings.tick_seconds, name) for name in (DISPATCH_OUTBOX, RECONCILE_JOBS)},
            **{name: _every(seconds, name, queue=VALIDATE_QUEUE) for name, seconds in SLOW_TASKS.items()},
        },
    }


def _every(seconds: float, task: str, *, queue: str = GATEWAY_QUEUE) -> dict[str, object]:
    """A tick that finds no free worker until the next ones come is dropped instead of piling up."""
    return {"task": task, "schedule": seconds, "options": {"queue": queue, "expires": max(2 * seconds, 1.0)}}


app = Celery("tunegate", include=["gateway.tasks"], set_as_current=False)
app.add_defaults(configuration)

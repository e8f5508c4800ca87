"""The gateway's own Celery workers, one for control and one for validation.

    celery -A gateway.celery_app worker -Q gateway -B --concurrency 1
    celery -A gateway.celery_app worker -Q validate --concurrency 2

Control is the outbox and the reconciler. It shares no process with the files of tenants, so that none of these holds up
what moves every job.

Messages are hints, so they are acknowledged before the work: the database knows what is left to do and the reconciler
sends it again. Tasks speak JSON only and return nothing.
"""

from __future__ import annotations

import logging

import structlog
from celery import Celery
from celery.signals import celeryd_init
from sqlalchemy.exc import OperationalError

from gateway.migrate import SchemaError, require_migrated
from gateway.settings import GatewaySettings
from policies.broker import celery_settings
from policies.contract.tasks import (
    DISPATCH_OUTBOX,
    GATEWAY_QUEUE,
    RECONCILE_JOBS,
    ROLL_UP_METRICS,
    SWEEP_FILES,
    SWEEP_JOBS,
    SWEEP_UPLOADS,
    VALIDATE_QUEUE,
)
from policies.environment import read_settings
from policies.liveness import show_liveness
from policies.own_memory import refuse_readers

log = structlog.get_logger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs the address of each request, the guard model's too

SLOW_TASKS = {ROLL_UP_METRICS: 150.0, SWEEP_JOBS: 30.0, SWEEP_UPLOADS: 30.0, SWEEP_FILES: 6 * 3600.0}
"""Seconds between rounds of what may take long, and must not hold up the outbox and the reconciler."""


def configuration() -> dict[str, object]:
    """Read from the environment when the application is first used, not when this module is imported."""
    settings = read_settings(GatewaySettings)
    return celery_settings(settings.broker_url, GATEWAY_QUEUE) | {
        # the default one keeps its schedule in a pickle file
        "beat_scheduler": "gateway.kit.steady_schedule:SteadyScheduler",
        "beat_schedule": {
            **{name: _every(settings.tick_seconds, name) for name in (DISPATCH_OUTBOX, RECONCILE_JOBS)},
            **{name: _every(seconds, name, queue=VALIDATE_QUEUE) for name, seconds in SLOW_TASKS.items()},
        },
    }


def _every(seconds: float, task: str, *, queue: str = GATEWAY_QUEUE) -> dict[str, object]:
    """A tick that finds no free worker until the next ones come is dropped instead of piling up."""
    return {"task": task, "schedule": seconds, "options": {"queue": queue, "expires": max(2 * seconds, 1.0)}}


@celeryd_init.connect
def _keep_credentials(**_: object) -> None:
    """Before the pool is forked. What reads tenants' files may run as the same user on the same machine."""
    try:
        refuse_readers()
    except OSError as error:  # Celery would log it and go on
        raise SystemExit(f"the worker's memory can't be kept from other processes: {error}") from error


@celeryd_init.connect
def _require_its_schema(**_: object) -> None:
    """A database that does not answer may do so later; one of another version will not become ours."""
    try:
        require_migrated(read_settings(GatewaySettings).database_url)
    except SchemaError as error:  # Celery would log it and go on
        raise SystemExit(f"error: {error}") from error
    except OperationalError as error:
        log.warning("database_unavailable", error=str(error))


app = Celery("tunegate", include=["gateway.tasks"], set_as_current=False)
app.add_defaults(configuration)
show_liveness(app, lambda: read_settings(GatewaySettings).liveness_file)

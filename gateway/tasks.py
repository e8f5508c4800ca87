"""Celery tasks of the gateway: shells around functions that know nothing of Celery."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

from gateway.app import build_services
from gateway.celery_app import app
from gateway.dependencies import Services
from gateway.files.service import delete_expired_files, delete_orphaned_bytes
from gateway.jobs.outbox import QueueRefusedError, Send, dispatch
from gateway.jobs.retention import sweep_due_jobs
from gateway.jobs.validation_queue import validate_waiting
from gateway.metrics.families import SERIES
from gateway.metrics.rollups import roll_up
from gateway.settings import GatewaySettings
from gateway.uploads.sweep import sweep_uploads as sweep_ended_uploads
from gateway.workers.reconciler import reconcile
from policies.contract.tasks import (
    DISPATCH_OUTBOX,
    RECONCILE_JOBS,
    ROLL_UP_METRICS,
    SWEEP_FILES,
    SWEEP_JOBS,
    SWEEP_UPLOADS,
    VALIDATE_FILES,
)
from policies.environment import read_settings


@cache
def services() -> Services:
    """Built by the first task of each process: a database connection must not cross a fork."""
    return build_services(read_settings(GatewaySettings))


def sender(celery: Celery) -> Send:
    """Sends by the connection of `celery`, without trying again: the outbox does."""

    def send(task: str, queue: str, arguments: Sequence[object]) -> None:
        try:
            celery.send_task(task, args=list(arguments), queue=queue, retry=False)
        except OperationalError as error:
            if isinstance(error.__cause__, ResponseError):  # otherwise there is no connection
                raise QueueRefusedError(str(error)) from error
            raise

    return send


@app.task(name=VALIDATE_FILES)
def validate_files(job_id: str) -> None:
    """The job is why the message came; whose turn it is, the database says."""
    validate_waiting(services())


@app.task(name=DISPATCH_OUTBOX)
def dispatch_outbox() -> None:
    with services().database.transaction() as session:
        dispatch(session, sender(app))


@app.task(name=RECONCILE_JOBS)
def reconcile_jobs() -> None:
    with services().database.transaction() as session:
        reconcile(session, services(), services().clock())
    delete_expired_files(services())


@app.task(name=SWEEP_JOBS)
def sweep_jobs() -> None:
    sweep_due_jobs(services())


@app.task(name=SWEEP_UPLOADS)
def sweep_uploads() -> None:
    sweep_ended_uploads(services())


@app.task(name=ROLL_UP_METRICS)
def roll_up_metrics() -> None:
    roll_up(services(), SERIES)


@app.task(name=SWEEP_FILES)
def sweep_files() -> None:
    delete_orphaned_bytes(services())

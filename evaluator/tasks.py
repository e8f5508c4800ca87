"""The Celery tasks of evaluation, the first and the second; the work is done in a child process (`evaluator.run`)."""

from __future__ import annotations

from policies.contract.tasks import CONFIRM_QUEUE, CONFIRM_RELEASE, EVALUATE_ADAPTER, EVALUATE_QUEUE
from policies.worker.celery_app import make_worker_app
from policies.worker.supervisor import run_job

app = make_worker_app("evaluator", EVALUATE_QUEUE)
confirmer = make_worker_app("confirmer", CONFIRM_QUEUE)
"""A second evaluator: `celery -A evaluator.tasks:confirmer`."""


@app.task(name=EVALUATE_ADAPTER)
def evaluate_adapter(job_id: str, attempt: int) -> None:
    run_job(kind="evaluate", job_id=job_id, module="evaluator.run")


@confirmer.task(name=CONFIRM_RELEASE)
def confirm_release(job_id: str, attempt: int) -> None:
    run_job(kind="confirm", job_id=job_id, module="evaluator.run")

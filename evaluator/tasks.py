"""The Celery task of evaluation; the work is done in a child process (`evaluator.run`)."""

from __future__ import annotations

from policies.contract.tasks import EVALUATE_ADAPTER, EVALUATE_QUEUE
from policies.worker.celery_app import make_worker_app
from policies.worker.supervisor import run_job

app = make_worker_app("evaluator", EVALUATE_QUEUE)


@app.task(name=EVALUATE_ADAPTER)
def evaluate_adapter(job_id: str, attempt: int) -> None:
    run_job(kind="evaluate", job_id=job_id, module="evaluator.run")

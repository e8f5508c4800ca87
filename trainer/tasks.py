"""The training worker: a Celery task around a child process. No torch in this process."""

from __future__ import annotations

from policies.contract.tasks import TRAIN_ADAPTER, TRAIN_QUEUE
from policies.worker.celery_app import make_worker_app
from policies.worker.supervisor import run_job

app = make_worker_app("trainer", TRAIN_QUEUE)


@app.task(name=TRAIN_ADAPTER)
def train_adapter(job_id: str, attempt: int) -> None:
    run_job("train", job_id, "trainer.run")

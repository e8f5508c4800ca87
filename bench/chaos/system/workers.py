"""Trainers and evaluators of the study: the product's own workers around another child.

celery -A bench.chaos.system.workers:trainer worker -Q train
"""

from __future__ import annotations

from policies.contract.tasks import EVALUATE_ADAPTER, EVALUATE_QUEUE, TRAIN_ADAPTER, TRAIN_QUEUE
from policies.worker.celery_app import make_worker_app
from policies.worker.supervisor import run_job

CHILD = "bench.chaos.system.light_child"

trainer = make_worker_app("trainer", TRAIN_QUEUE)
evaluator = make_worker_app("evaluator", EVALUATE_QUEUE)


@trainer.task(name=TRAIN_ADAPTER)
def train_adapter(job_id: str, attempt: int) -> None:
    run_job("train", job_id, CHILD)


@evaluator.task(name=EVALUATE_ADAPTER)
def evaluate_adapter(job_id: str, attempt: int) -> None:
    run_job("evaluate", job_id, CHILD)

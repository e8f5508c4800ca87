"""Names that gateway and workers must agree on: Celery queues and tasks, paths of the internal API."""

GATEWAY_QUEUE = "gateway"
TRAIN_QUEUE = "train"
EVALUATE_QUEUE = "eval"

TRAIN_ADAPTER = "trainer.train_adapter"
EVALUATE_ADAPTER = "evaluator.evaluate_adapter"
VALIDATE_FILES = "gateway.validate_files"
DISPATCH_OUTBOX = "gateway.dispatch_outbox"
RECONCILE_JOBS = "gateway.reconcile_jobs"

INTERNAL_PREFIX = "/internal/v1"
"""Only workers may call paths below this; a reverse proxy must not expose it to tenants."""
CLAIMS_PATH = f"{INTERNAL_PREFIX}/claims"
HEARTBEAT_PATH = f"{INTERNAL_PREFIX}/attempts/{{attempt_token}}/heartbeat"
EVENTS_PATH = f"{INTERNAL_PREFIX}/attempts/{{attempt_token}}/events"
COMPLETION_PATH = f"{INTERNAL_PREFIX}/attempts/{{attempt_token}}/completion"

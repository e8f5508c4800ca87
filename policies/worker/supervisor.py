"""One attempt, from claim to completion: a child process works, this process watches it and speaks with the gateway.

The gateway's answers to heartbeats are orders: `pause` and `cancel` end the child with SIGTERM (and SIGKILL to its
group after a grace), `lost` kills it at once. A gateway that is silent for longer than the lease counts as `lost`: by
then the job is somebody else's. Heartbeats stop before the completion is sent.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from policies.contract.worker_api import Assignment, Claim, ClaimRequest, Completion, Order, Outcome, WorkKind
from policies.errors import LeaseLostError
from policies.offline import environment_for
from policies.worker.child_process import ChildProcess, threads_for
from policies.worker.client import GatewayClient, GatewayUnreachableError
from policies.worker.crash import digest_of, point_reached
from policies.worker.metrics import HEARTBEAT_FAILURES, RUN_SECONDS, RUNS
from policies.worker.settings import WorkerSettings, worker_settings
from policies.worker.work_folder import attempt_folder, remove_abandoned

logger = structlog.get_logger()

LOOK_SECONDS = 0.1
"""How often the child is looked at between heartbeats."""
CLAIM_PATIENCE_SECONDS = 60.0
EVENT_BATCH = 500


def run_job(kind: WorkKind, job_id: str, module: str) -> None:
    """Claim the job and see one attempt through; return quietly where there is nothing to claim."""
    settings = worker_settings()
    remove_abandoned(settings.work_dir)
    with GatewayClient(settings.gateway_url, settings.worker_token.get_secret_value()) as client:
        request = ClaimRequest(kind=kind, job_id=job_id, worker=f"{socket.gethostname()}:{os.getpid()}")
        claim = client.claim(request, patience_seconds=CLAIM_PATIENCE_SECONDS)
        if claim is None:
            logger.info("nothing to claim", kind=kind, job=job_id)
            return
        Attempt(claim, settings, client).run(module)


def announce_shutdown(work_dir: Path, *, worker_pid: int) -> None:
    """Tell the processes of this worker's pool to give their jobs back."""
    work_dir.mkdir(parents=True, exist_ok=True)
    _shutdown_mark(work_dir, worker_pid).touch()


def forget_shutdown(work_dir: Path, *, worker_pid: int) -> None:
    """Remove the mark of this worker, or of an earlier one of the same process id."""
    _shutdown_mark(work_dir, worker_pid).unlink(missing_ok=True)


def _shutdown_mark(work_dir: Path, worker_pid: int) -> Path:
    return work_dir / f"tunegate-worker-{worker_pid}.stopping"


class Attempt:
    """One claimed job and its child process."""

    def __init__(
        self,
        claim: Claim,
        settings: WorkerSettings,
        client: GatewayClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._claim, self._settings, self._client, self._clock = claim, settings, client, clock
        self._log = logger.bind(kind=claim.kind, job=claim.spec.job_id, attempt=claim.attempt)
        self._worker_pid = os.getppid()
        self._last_answer = clock()
        self._next_heartbeat = clock()
        self._kill_at: float | None = None

    def run(self, module: str) -> None:
        """Work until the child ended, then complete; nothing of the child is left behind."""
        started = self._clock()
        with attempt_folder(self._settings.work_dir) as folder:
            (folder / "assignment.json").write_text(self._assignment().model_dump_json())
            spec = self._claim.spec
            environment = threads_for(self._settings.threads) | environment_for(spec.suite, spec.model_dump_json())
            child = ChildProcess(module, folder, environment=environment, user=self._settings.child_user)
            self._log.info("started", pid=child.pid)
            try:
                outcome = self._watch(child)
            except LeaseLostError as lost:
                outcome = "lost"
                self._log.warning("stopped", reason=lost.message)
            finally:
                child.close()
        RUNS.labels(self._claim.kind, outcome).inc()
        RUN_SECONDS.labels(self._claim.kind).observe(self._clock() - started)

    def _assignment(self) -> Assignment:
        return Assignment(
            work=self._claim.work(),
            store_url=self._settings.store_url,
            cache_dir=str(self._settings.cache_dir),
            threads=self._settings.threads,
            processes=self._settings.processes,
            evaluation_engine=self._settings.evaluation_engine,
            worker_pid=os.getpid(),
        )

    def _watch(self, child: ChildProcess) -> str:
        """Returns the outcome; raises `LeaseLostError` where the job is no longer this attempt's."""
        while not child.has_ended(within_seconds=LOOK_SECONDS):
            now = self._clock()
            if now >= self._next_heartbeat:
                self._next_heartbeat = now + self._claim.heartbeat_seconds
                self._speak_with_gateway(child)
            if self._kill_at is None and self._is_stopping():
                self._stop(child, self._settings.yield_grace_seconds)
            if self._kill_at is not None and now >= self._kill_at:
                self._log.warning("child did not stop in time; killing its group")
                child.kill()
        return self._complete(child)

    def _speak_with_gateway(self, child: ChildProcess) -> None:
        asked = self._clock()
        try:
            self._relay_events(child)
            order = self._client.heartbeat(self._claim.attempt_token, child.progress)
        except GatewayUnreachableError as error:
            HEARTBEAT_FAILURES.labels(self._claim.kind).inc()
            silent_seconds = self._clock() - self._last_answer
            self._log.warning("no heartbeat", reason=error.message, silent_seconds=round(silent_seconds, 1))
            if silent_seconds > self._claim.lease_seconds:
                raise LeaseLostError("the gateway was silent for longer than the lease") from error
            return
        self._last_answer = asked
        if order is Order.LOST:
            raise LeaseLostError("the gateway gave the job to another attempt")
        if order is not Order.CONTINUE and self._kill_at is None:
            is_cancel = order is Order.CANCEL
            self._stop(child, self._settings.stop_grace_seconds if is_cancel else self._settings.yield_grace_seconds)
        elif order is Order.CANCEL and self._kill_at is not None:
            self._kill_at = min(self._kill_at, self._clock() + self._settings.stop_grace_seconds)

    def _stop(self, child: ChildProcess, grace_seconds: float) -> None:
        child.ask_to_stop()
        self._kill_at = self._clock() + grace_seconds

    def _is_stopping(self) -> bool:
        """Whether this worker was told to end, or its parent is gone."""
        return os.getppid() != self._worker_pid or _shutdown_mark(self._settings.work_dir, self._worker_pid).exists()

    def _relay_events(self, child: ChildProcess, *, patience_seconds: float = 0.0) -> None:
        while events := child.take_events(EVENT_BATCH):
            try:
                self._client.send_events(self._claim.attempt_token, events, patience_seconds=patience_seconds)
            except GatewayUnreachableError:
                child.put_back(events)
                raise

    def _complete(self, child: ChildProcess) -> str:
        completion = self._located(child)
        if completion.outcome is Outcome.CRASHED and self._kill_at is not None:
            # Ended by our own signal before it could answer: no fault of the job, so no attempt of its is used up.
            completion = completion.model_copy(update={"outcome": Outcome.YIELDED, "crash_signature": None})
        if completion.outcome is Outcome.CRASHED:
            signature, last_words = completion.crash_signature, child.last_words()
            self._log.error("crashed", reason=completion.error_message, signature=signature, last_words=last_words)
        self._relay_before_the_end(child)
        self._client.complete(self._claim.attempt_token, completion, patience_seconds=self._claim.lease_seconds)
        self._log.info("completed", outcome=completion.outcome.value)
        return completion.outcome.value

    def _located(self, child: ChildProcess) -> Completion:
        """The child's answer; the signature of a crash says how far it was as well."""
        completion = child.completion()
        if completion.crash_signature is None:
            return completion
        signature = digest_of(completion.crash_signature, point_reached(self._claim, child.progress))
        return completion.model_copy(update={"crash_signature": signature})

    def _relay_before_the_end(self, child: ChildProcess) -> None:
        """The last events, often a checkpoint; the answer counts more, so a gateway that stays away only loses them."""
        try:
            self._relay_events(child, patience_seconds=self._claim.lease_seconds / 2)
        except GatewayUnreachableError as error:
            self._log.warning("last events were not delivered", reason=error.message)

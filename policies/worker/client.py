"""The worker's side of the gateway's internal API."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Self

import httpx
from pydantic import BaseModel
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from policies.contract.base_models import BaseModelCheck, BaseModelsToCheck
from policies.contract.jobs import BaseModelSpec
from policies.contract.tasks import (
    BASE_MODELS_PATH,
    CLAIMS_PATH,
    COMPLETION_PATH,
    EVENTS_PATH,
    HEARTBEAT_PATH,
    WORKER_KEY_HEADER,
)
from policies.contract.worker_api import (
    Claim,
    ClaimRequest,
    Completion,
    EventBatch,
    HeartbeatAnswer,
    HeartbeatRequest,
    Order,
    Progress,
    WorkerEvent,
)
from policies.errors import LeaseLostError, WorkerError

TIMEOUT_SECONDS = 10.0


class GatewayUnreachableError(WorkerError):
    """The gateway did not answer, or answered that it cannot now; the call may be repeated."""

    code = "gateway_unreachable"


class GatewayClient:
    """A worker's calls, about jobs and about base models; `transport` stands in for the network in tests.

    Each has a key of its own: only the client that claimed a job can say anything about the attempt.
    """

    def __init__(self, base_url: str, token: str, transport: httpx.BaseTransport | None = None) -> None:
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Authorization": f"Bearer {token}", WORKER_KEY_HEADER: secrets.token_urlsafe(32)},
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def claim(self, request: ClaimRequest, *, patience_seconds: float) -> Claim | None:
        """The job, or None where there is nothing to do; repeated until the gateway answers or patience ends."""
        response = self._repeat(CLAIMS_PATH, request, patience_seconds)
        return None if response.status_code == httpx.codes.NO_CONTENT else Claim.model_validate_json(response.content)

    def heartbeat(self, attempt_token: str, progress: Progress | None) -> Order:
        """One heartbeat; the caller repeats it at its own pace."""
        path = HEARTBEAT_PATH.format(attempt_token=attempt_token)
        response = self._send("POST", path, HeartbeatRequest(progress=progress))
        return HeartbeatAnswer.model_validate_json(response.content).order

    def send_events(self, attempt_token: str, events: Sequence[WorkerEvent], *, patience_seconds: float) -> None:
        """Pass events on; one whose answer got lost on the way may be recorded twice."""
        path = EVENTS_PATH.format(attempt_token=attempt_token)
        self._repeat(path, EventBatch(events=tuple(events)), patience_seconds)

    def complete(self, attempt_token: str, completion: Completion, *, patience_seconds: float) -> None:
        """Hand in the answer; a repeat is harmless. Raises `LeaseLostError` where another attempt has the job."""
        self._repeat(COMPLETION_PATH.format(attempt_token=attempt_token), completion, patience_seconds)

    def base_models_to_check(self) -> tuple[BaseModelSpec, ...]:
        """What the gateway offers and wants an evaluator to look at."""
        return BaseModelsToCheck.model_validate_json(self._send("GET", BASE_MODELS_PATH).content).specs

    def report_check(self, check: BaseModelCheck) -> None:
        """What was found; a repeat is harmless."""
        self._send("POST", BASE_MODELS_PATH, check)

    def _repeat(self, path: str, body: BaseModel, patience_seconds: float) -> httpx.Response:
        attempts = Retrying(
            retry=retry_if_exception_type(GatewayUnreachableError),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            stop=stop_after_delay(patience_seconds),
            reraise=True,
        )
        return attempts(self._send, "POST", path, body)

    def _send(self, method: str, path: str, body: BaseModel | None = None) -> httpx.Response:
        content = None if body is None else body.model_dump_json()
        try:
            response = self._http.request(method, path, content=content, headers={"Content-Type": "application/json"})
        except httpx.TransportError as error:
            raise GatewayUnreachableError(f"the gateway did not answer: {error}") from error
        if response.status_code == httpx.codes.GONE:
            raise LeaseLostError("another attempt has the job by now; this one stops")
        if response.is_server_error or response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise GatewayUnreachableError(f"the gateway answered {response.status_code}")
        if response.is_error:
            raise WorkerError(f"the gateway refused {path}: {response.status_code} {response.text[:500]}")
        return response

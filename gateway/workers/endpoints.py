"""The internal API: what workers call. Never expose its prefix to tenants."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from gateway.dependencies import ServicesDep, SessionDep
from gateway.routes import WorkerRoute
from gateway.tenants.auth import require_worker
from gateway.workers import leases
from gateway.workers.completion import complete
from gateway.workers.worker_events import record_worker_events
from policies.contract.tasks import CLAIMS_PATH, COMPLETION_PATH, EVENTS_PATH, HEARTBEAT_PATH
from policies.contract.worker_api import Claim, ClaimRequest, Completion, EventBatch, HeartbeatAnswer, HeartbeatRequest

router = APIRouter(
    route_class=WorkerRoute, tags=["internal"], dependencies=[Depends(require_worker)], include_in_schema=False
)

AttemptToken = Annotated[str, Path(max_length=64)]


@router.post(CLAIMS_PATH, response_model=Claim)
def claim(request: ClaimRequest, session: SessionDep, services: ServicesDep) -> Claim | Response:
    return leases.claim(session, services, request) or Response(status_code=204)


@router.post(HEARTBEAT_PATH)
def heartbeat(
    attempt_token: AttemptToken, request: HeartbeatRequest, session: SessionDep, services: ServicesDep
) -> HeartbeatAnswer:
    return HeartbeatAnswer(order=leases.heartbeat(session, services, attempt_token=attempt_token, request=request))


@router.post(EVENTS_PATH, status_code=204)
def events(attempt_token: AttemptToken, batch: EventBatch, session: SessionDep, services: ServicesDep) -> None:
    record_worker_events(session, attempt_token=attempt_token, events=batch.events, now=services.clock())


@router.post(COMPLETION_PATH, status_code=204)
def completion(attempt_token: AttemptToken, answer: Completion, session: SessionDep, services: ServicesDep) -> None:
    complete(session, services, attempt_token=attempt_token, completion=answer)

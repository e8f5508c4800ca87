"""The internal API: what workers call. Never expose its prefix to tenants."""

from __future__ import annotations

from fastapi import APIRouter, Response

from gateway.base_models.checks import base_models_to_check, keep_check
from gateway.dependencies import ServicesDep, SessionDep
from gateway.workers import leases
from gateway.workers.completion import complete
from gateway.workers.credentials import CallerDep, CredentialRoute, ProofDep, require_kind
from gateway.workers.worker_events import record_worker_events
from policies.contract.base_models import BaseModelCheck, BaseModelsToCheck
from policies.contract.tasks import BASE_MODELS_PATH, CLAIMS_PATH, COMPLETION_PATH, EVENTS_PATH, HEARTBEAT_PATH
from policies.contract.worker_api import Claim, ClaimRequest, Completion, EventBatch, HeartbeatAnswer, HeartbeatRequest

router = APIRouter(route_class=CredentialRoute, tags=["internal"], include_in_schema=False)


@router.post(CLAIMS_PATH, response_model=Claim)
def claim(caller: CallerDep, request: ClaimRequest, session: SessionDep, services: ServicesDep) -> Claim | Response:
    require_kind(caller, request.kind)
    return leases.claim(session, services, request, worker_key_hash=caller.key_hash) or Response(status_code=204)


@router.post(HEARTBEAT_PATH)
def heartbeat(
    proof: ProofDep, request: HeartbeatRequest, session: SessionDep, services: ServicesDep
) -> HeartbeatAnswer:
    return HeartbeatAnswer(order=leases.heartbeat(session, services, proof=proof, request=request))


@router.post(EVENTS_PATH, status_code=204)
def events(proof: ProofDep, batch: EventBatch, session: SessionDep, services: ServicesDep) -> None:
    record_worker_events(session, proof=proof, events=batch.events, now=services.clock())


@router.post(COMPLETION_PATH, status_code=204)
def completion(proof: ProofDep, answer: Completion, session: SessionDep, services: ServicesDep) -> None:
    complete(session, services, proof=proof, completion=answer)


@router.get(BASE_MODELS_PATH)
def base_models(caller: CallerDep, session: SessionDep, services: ServicesDep) -> BaseModelsToCheck:
    require_kind(caller, "evaluate")
    return base_models_to_check(session, services)


@router.post(BASE_MODELS_PATH, status_code=204)
def base_model_check(caller: CallerDep, check: BaseModelCheck, session: SessionDep, services: ServicesDep) -> None:
    require_kind(caller, "evaluate")
    keep_check(session, services, check)

"""What a worker can do with the credential of its kind, and an attacker with a token that was seen: nothing more."""

from __future__ import annotations

import secrets
from itertools import permutations
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from gateway.app import create_app
from gateway.settings import GatewaySettings
from gateway.tables.jobs import Job, JobCheckpoint, JobEvent
from gateway.tables.models import Model
from policies.contract.tasks import CLAIMS_PATH, COMPLETION_PATH, EVENTS_PATH, HEARTBEAT_PATH, WORKER_KEY_HEADER
from policies.contract.worker_api import (
    ClaimRequest,
    Completion,
    EventBatch,
    HeartbeatRequest,
    Outcome,
    Progress,
    WorkerEvent,
    WorkKind,
)
from policies.environment import read_settings
from policies.errors import ConfigurationError
from tests.gateway.conftest import WORKER_TOKENS, LiveGateway
from tests.gateway.hand_worker import HandWorker, job_row, policy_under, spec_of
from tests.gateway.records import report_on, store_evaluation, training_record

Rows = list[dict[str, Any]]  # Any: columns of every type


def everything(gateway: LiveGateway) -> Rows:
    """All that an attempt's calls can write."""
    with gateway.services.database.transaction() as session:
        return [
            {column.key: getattr(row, column.key) for column in table.__table__.columns}
            for table in (Job, JobEvent, JobCheckpoint, Model)
            for row in session.scalars(select(table))
        ]


def calls_about(token: str, forged: Completion) -> list[tuple[str, dict[str, object]]]:
    """Each call about an attempt, with what an attacker would like to say."""
    event = WorkerEvent(type="message", message="believe me")
    progress = Progress(step=1, total_steps=1, stage="done")
    bodies = (
        (HEARTBEAT_PATH, HeartbeatRequest(progress=progress)),
        (EVENTS_PATH, EventBatch(events=(event,))),
        (COMPLETION_PATH, forged),
    )
    return [(path.format(attempt_token=token), body.model_dump(mode="json")) for path, body in bodies]


def answers(gateway: LiveGateway, token: str, forged: Completion, headers: dict[str, str]) -> list[object]:
    """What the attacker is told: a status, or of a heartbeat the order."""
    told: list[object] = []
    for path, body in calls_about(token, forged):
        response = httpx.post(gateway.url + path, json=body, headers=headers)
        told.append(response.json()["order"] if response.status_code == 200 else response.status_code)
    return told


def credential(kind: WorkKind, key: str | None = None) -> dict[str, str]:
    return {"authorization": f"Bearer {WORKER_TOKENS[kind]}", WORKER_KEY_HEADER: key or secrets.token_hex(32)}


def forged_evaluation(gateway: LiveGateway, job_id: str) -> Completion:
    """A report without any harm and the decision that follows from it, both in the store: a trainer can write there."""
    store, spec = gateway.services.stores.of_job(job_id), spec_of(gateway.services, job_id)
    policy = policy_under(gateway.services, job_id)
    report = report_on(training_record(spec, store), policy, attempt=spec.attempt)
    record, decision = store_evaluation(store, report, policy, spec=spec.digest)
    return Completion(outcome=Outcome.SUCCEEDED, record=record, decision=decision)


def test_the_forged_evaluation_would_release_the_adapter(
    live_gateway: LiveGateway, worker: HandWorker, trained: str
) -> None:
    """Otherwise the attacks below would prove nothing."""
    token = worker.must_claim(trained, "evaluate").attempt_token
    worker.complete(token, forged_evaluation(live_gateway, trained)).raise_for_status()
    assert job_row(live_gateway.services, trained).phase == "released"


@pytest.mark.parametrize(("caller", "wanted"), list(permutations(WORKER_TOKENS, 2)))
def test_a_credential_claims_no_work_of_another_kind(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, trained: str, caller: WorkKind, wanted: WorkKind
) -> None:
    before = everything(live_gateway)
    response = worker.post(CLAIMS_PATH, ClaimRequest(kind=wanted, job_id=trained, worker="w"), caller)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "wrong_worker_kind")
    assert everything(live_gateway) == before


def test_a_trainer_completes_no_evaluation_whose_token_it_saw(
    live_gateway: LiveGateway, worker: HandWorker, trained: str
) -> None:
    token = worker.must_claim(trained, "evaluate").attempt_token
    forged, before = forged_evaluation(live_gateway, trained), everything(live_gateway)
    assert answers(live_gateway, token, forged, credential("train")) == ["lost", 410, 410]
    assert everything(live_gateway) == before


def test_a_trainer_completes_no_evaluation_with_the_evaluators_key(live_gateway: LiveGateway, trained: str) -> None:
    key = secrets.token_hex(32)
    request = ClaimRequest(kind="evaluate", job_id=trained, worker="w").model_dump(mode="json")
    claimed = httpx.post(live_gateway.url + CLAIMS_PATH, json=request, headers=credential("evaluate", key))
    token = claimed.raise_for_status().json()["attempt_token"]
    forged, before = forged_evaluation(live_gateway, trained), everything(live_gateway)
    assert answers(live_gateway, token, forged, credential("train", key)) == ["lost", 410, 410]
    assert everything(live_gateway) == before


def test_a_trainer_does_not_evaluate_with_the_token_of_its_own_training(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str
) -> None:
    store = live_gateway.services.stores.of_job(job_id)
    claim = worker.must_claim(job_id)
    record = store.put_record(training_record(claim.spec, store))
    worker.end(claim.attempt_token, Outcome.SUCCEEDED, record=record)
    before = everything(live_gateway)
    worker.complete(claim.attempt_token, forged_evaluation(live_gateway, job_id)).raise_for_status()
    assert everything(live_gateway) == before, "a repeat of an answer changes nothing, whatever it says"
    worker.must_claim(job_id, "evaluate")
    before = everything(live_gateway)
    assert worker.complete(claim.attempt_token, forged_evaluation(live_gateway, job_id)).status_code == 410
    assert everything(live_gateway) == before


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_another_worker_of_the_same_kind_says_nothing_about_an_attempt(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, kind: WorkKind
) -> None:
    if kind == "evaluate":
        store = live_gateway.services.stores.of_job(job_id)
        training = worker.must_claim(job_id)
        record = store.put_record(training_record(training.spec, store))
        worker.end(training.attempt_token, Outcome.SUCCEEDED, record=record)
    token = worker.must_claim(job_id, kind).attempt_token
    before = everything(live_gateway)
    failed = Completion(outcome=Outcome.FAILED, error_code="x", error_message="y")
    assert answers(live_gateway, token, failed, credential(kind)) == ["lost", 410, 410]
    assert everything(live_gateway) == before


@pytest.mark.parametrize("key", ["", "short", "k" * 129])
def test_a_call_without_a_key_of_its_worker_is_refused(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, key: str
) -> None:
    token = worker.must_claim(job_id).attempt_token
    before = everything(live_gateway)
    headers = {"authorization": f"Bearer {WORKER_TOKENS['train']}"} | ({WORKER_KEY_HEADER: key} if key else {})
    assert answers(live_gateway, token, Completion(outcome=Outcome.YIELDED), headers) == [401, 401, 401]
    request = ClaimRequest(kind="train", job_id=job_id, worker="w").model_dump(mode="json")
    assert httpx.post(live_gateway.url + CLAIMS_PATH, json=request, headers=headers).status_code == 401
    assert everything(live_gateway) == before


@pytest.mark.parametrize("token", ["x", "w" * 40, "t" * 39, "t" * 40 + "e" * 40])
def test_no_other_credential_opens_the_internal_api(
    live_gateway: LiveGateway, worker: HandWorker, job_id: str, token: str
) -> None:
    attempt = worker.must_claim(job_id).attempt_token
    before = everything(live_gateway)
    headers = {"authorization": f"Bearer {token}", WORKER_KEY_HEADER: "k" * 40}
    assert answers(live_gateway, attempt, Completion(outcome=Outcome.YIELDED), headers) == [401, 401, 401]
    assert everything(live_gateway) == before


@pytest.mark.parametrize("missing", ["trainer_token", "evaluator_token"])
def test_the_api_does_not_start_without_a_token_for_each_kind(settings: GatewaySettings, missing: str) -> None:
    with pytest.raises(ConfigurationError, match="TUNEGATE_TRAINER_TOKEN and TUNEGATE_EVALUATOR_TOKEN"):
        create_app(settings.model_copy(update={missing: None}))


def test_trainers_and_evaluators_cannot_share_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_TRAINER_TOKEN", "x" * 40)
    monkeypatch.setenv("TUNEGATE_EVALUATOR_TOKEN", "x" * 40)
    with pytest.raises(
        ConfigurationError, match="EVALUATOR_TOKEN: Value error, trainers, evaluators and second evaluators need"
    ):
        read_settings(GatewaySettings)
